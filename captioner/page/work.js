// The list outlasts the runs of the page's script: a run changes what has changed and leaves the box in which somebody
// types alone. What they did goes to the server as numbered messages, again and again until the server has done it.
// All texts go in as text, never as HTML.
const TAB = crypto.randomUUID?.() ?? String(Math.random()), AGAIN = 3000 // ms
const stored = (name) => { try { return JSON.parse(sessionStorage[name]) } catch { return null } }
const store = (name, value) => { try { sessionStorage[name] = JSON.stringify(value) } catch {} }

let number = 0, tries = 0, timer, say, data = { texts: {}, rows: [], done: {}, choice: {} }
// Changes that a tab had not told the server before it was loaded again.
let outbox = (stored("captionerOutbox") || []).map(message => ({ ...message, number: ++number }))
let draft = stored("captionerDraft") // { path, text }: what stands in the box
let current = draft?.path, wanted = "", asked = false, root

function tell(message) {
  outbox.push({ ...message, number: ++number })
  store("captionerOutbox", outbox.filter(each => each.path !== undefined))
  send()
}

function send() {
  clearTimeout(timer)
  if (!outbox.length) return
  timer = setTimeout(send, AGAIN)
  say({ server: data.server, tab: TAB, tries: ++tries, messages: outbox })
}

function make(tag, parent, properties = {}, attributes = {}) {
  const element = Object.assign(document.createElement(tag), properties)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  parent?.append(element)
  return element
}

const part = (name) => root.querySelector("." + name)
const cards = () => [...part("list").children].map(row => row.firstChild)
const cardOf = (path) => cards().find(card => card.parentElement.path === path)
const rowOf = (path) => data.rows.find(row => row.path === path)
const nameOf = (path) => path.split("/").pop()
const status = (text) => { part("status").textContent = text }

// A row as it will be once the server has done what it was told.
function expected(row) {
  const own = outbox.filter(message => message.path === row.path).pop()
  if (!own) return row
  return { ...row, caption: own.text, state: own.text ? "checked" : "rejected", doubt: "", pending: true }
}

function build() {
  const form = make("form", root, { className: "bar find" })
  const describe = make("input", form, { type: "search", className: "describe", enterKeyHint: "search", maxLength: 200 })
  make("button", form, { className: "go" })
  form.onsubmit = event => { event.preventDefault(); find(describe.value) }
  describe.oninput = () => { if (!describe.value && data.choice.described) find("") } // the cross in the box
  const found = make("div", root, { className: "bar answer" })
  make("p", found, { className: "found" }, { role: "status" })
  make("button", found, { className: "all", type: "button", onclick: () => { leave(); tell({ show: { everything: true } }) } })
  make("button", found, { className: "back", type: "button", onclick: () => { describe.value = ""; find("") } })
  const bar = make("div", root, { className: "bar" })
  const search = make("input", bar, { type: "search", className: "search" })
  search.oninput = () => {
    clearTimeout(search.timer)
    search.timer = setTimeout(() => { leave(); tell({ show: { words: search.value } }) }, 300)
  }
  for (const name of ["filter", "order", "layout"]) {
    const choice = make("select", bar, { className: name })
    choice.onchange = () => { leave(); tell({ show: { [name]: choice.value } }) }
  }
  make("button", bar, { className: "undo", type: "button", onclick: () => { leave(); tell({ undo: true }) } })
  make("p", root, { className: "keys" })
  make("p", root, { className: "status" }, { role: "status" })
  make("div", root, { className: "list" }, { role: "grid" })
  const pager = make("div", root, { className: "pager" })
  make("button", pager, { className: "previous", type: "button", onclick: () => turn(-1) })
  make("span", pager, { className: "place" })
  make("button", pager, { className: "next", type: "button", onclick: () => turn(1) })
  root.addEventListener("keydown", press)
  // Streamlit has keys of its own, and from outside it does not see that somebody types in here.
  for (const kind of ["keydown", "keyup", "keypress"]) root.addEventListener(kind, event => event.stopPropagation())
  part("list").addEventListener("pointerdown", hold)
}

// What somebody is typing elsewhere is saved first. Then the first picture that is found gets the focus.
function find(described) {
  const describe = part("describe")
  describe.shown = described = described.trim()
  leave()
  tell({ show: { described } })
  if (described) describe.blur()
}

// From the first thing that somebody does here, pictures that are shown keep their places.
function hold() {
  if (!data.held && !asked) tell({ hold: true })
  asked = true
}

function turn(pages, focus = "first") {
  const first = data.choice.first + pages * data.size
  if (first < 0 || first >= data.total) return false
  leave()
  wanted = focus
  tell({ show: { first } })
  return true
}

function change(row, text) {
  text = text.trim().replace(/\s+/g, " ")
  tell({ path: row.path, text, seen: row.caption })
  status(data.texts.saving.replace("{name}", nameOf(row.path)))
}

// Close the box. What was typed counts unless it is dropped, also if somebody went elsewhere instead of saving it.
// Saving a caption of captioner as it is accepts it.
function leave(how = "") {
  const row = draft && rowOf(draft.path), now = row && expected(row)
  if (now && how !== "drop" && (draft.text.trim() !== now.caption || (how === "save" && now.state === "written"))) {
    change(now, draft.text)
  }
  if (how && draft) current = draft.path
  draft = null
  store("captionerDraft", null)
  draw()
}

function open(path) {
  if (draft?.path === path) return
  leave()
  const row = expected(rowOf(path))
  if (!["written", "checked", "rejected"].includes(row.state)) return
  draft = { path, text: row.caption }
  current = path
  draw()
}

function go(steps) {
  const place = data.rows.findIndex(row => row.path === current) + steps
  if (data.rows[place]) focus(data.rows[place].path)
  else if (place < 0 ? !turn(-1, "last") : !turn(1)) focus(current)
}

function focus(path) {
  current = path
  draw()
  const card = cardOf(path)
  card?.focus({ preventScroll: true })
  card?.scrollIntoView({ block: "nearest" })
}

function saveAndGo() {
  leave("save")
  go(1)
}

function decide(text) { // null: what stands there
  const row = expected(rowOf(current))
  if (!["written", "checked", "rejected"].includes(row.state)) return go(1)
  change(row, text ?? row.caption)
  go(1)
}

function press(event) {
  const { key, target } = event
  if (event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey || event.altKey) return
  const inList = part("list").contains(target), typing = target.matches("input, textarea, select")
  let act
  if (target.matches("textarea")) {
    if (key === "Enter") act = saveAndGo
    if (key === "Escape") act = () => { leave("drop"); focus(current) }
  } else if (target.matches(".search, .describe")) {
    if (["Escape", "ArrowDown"].includes(key) || (key === "Enter" && target.matches(".search"))) act = () => focus(cardOf(current) ? current : data.rows[0]?.path)
  } else if (!typing) {
    act = {
      "/": () => part("search").select(),
      "?": () => { status(""); requestAnimationFrame(() => status(data.texts.keys)) },
      u: () => { leave(); tell({ undo: true }) },
      ...(inList && !target.matches("button") && {
        Enter: () => open(current), a: () => decide(null), x: () => decide(""),
        j: () => go(1), ArrowDown: () => go(1), ArrowRight: () => go(1),
        k: () => go(-1), ArrowUp: () => go(-1), ArrowLeft: () => go(-1),
        PageDown: () => turn(1), PageUp: () => turn(-1),
        Home: () => focus(data.rows[0].path), End: () => focus(data.rows.at(-1).path),
      }),
    }[key.length === 1 ? key.toLowerCase() : key]
  }
  if (!act) return
  event.preventDefault()
  if (inList) hold()
  act()
}

function newCard(list, path) {
  const row = make("div", list, { path }, { role: "row" })
  const card = make("div", row, { className: "card", onclick: () => open(path) }, { role: "gridcell" })
  card.onfocus = () => { if (current !== path) { current = path; draw() } }
  make("img", card, { alt: "", className: "picture" })
  const words = make("div", card, { className: "words" })
  for (const name of ["caption", "trouble", "mine"]) make("p", words, { className: name })
  make("div", words, { className: "choice" })
  make("div", words, { className: "box" })
  const facts = make("p", words, { className: "facts" })
  for (const name of ["state", "doubt", "name"]) make("span", facts, { className: name })
  return row
}

function button(parent, text, action, className = "") {
  make("button", parent, { type: "button", textContent: text, className,
    onclick: event => { event.stopPropagation(); action() } })
}

function drawBox(card, row) {
  const box = card.querySelector(".box"), isOpen = draft?.path === row.path
  if (isOpen === Boolean(box.firstChild)) return
  box.replaceChildren()
  if (!isOpen) return
  const area = make("textarea", box, { value: draft.text, rows: 3, maxLength: 1000, oninput: () => {
    draft.text = area.value
    store("captionerDraft", draft)
  } }, { "aria-label": data.texts.edit_label.replace("{name}", nameOf(row.path)) })
  const buttons = make("div", box, { className: "buttons" })
  button(buttons, data.texts.save_next, saveAndGo, "primary")
  button(buttons, data.texts.reject, () => { leave("drop"); decide("") })
  button(buttons, data.texts.cancel, () => { leave("drop"); focus(current) })
  area.focus()
  area.setSelectionRange(area.value.length, area.value.length)
}

function drawCard(element, row, place) {
  const card = element.firstChild, set = (name, text) => {
    const target = card.querySelector("." + name)
    if (target.textContent !== text) target.textContent = text
  }
  const state = row.pending ? data.texts.pending : data.texts[row.state] || ""
  element.setAttribute("aria-rowindex", data.choice.first + place + 1)
  element.setAttribute("aria-selected", row.path === current)
  card.tabIndex = row.path === current ? 0 : -1
  card.className = `card ${row.state}${row.path === current ? " current" : ""}${draft?.path === row.path ? " open" : ""}`
  card.setAttribute("aria-label", [nameOf(row.path), row.caption, row.doubt, state, row.trouble].filter(Boolean).join(". "))
  set("caption", row.caption)
  set("state", state)
  set("doubt", row.doubt)
  set("name", row.path)
  set("trouble", row.trouble)
  set("mine", row.mine === undefined ? "" : data.texts.mine.replace("{text}", row.mine))
  const choice = card.querySelector(".choice"), shown = row.mine === undefined ? "" : row.mine + "\0" + row.caption
  if (choice.shown !== shown) {
    choice.shown = shown
    choice.replaceChildren()
    if (shown) {
      button(choice, data.texts.use_mine, () => { change(row, row.mine); draw() })
      button(choice, data.texts.keep_theirs, () => { change(row, row.caption); draw() })
    }
  }
  const picture = card.querySelector("img"), source = globalThis.captionerPreviews?.[row.path] || ""
  if ((picture.getAttribute("src") || "") !== source) source ? (picture.src = source) : picture.removeAttribute("src")
  drawBox(card, row)
}

function draw() {
  const list = part("list"), focused = root.getRootNode().activeElement
  const there = new Map([...list.children].map(row => [row.path, row])), paths = new Set(data.rows.map(row => row.path))
  for (const [path, row] of there) if (!paths.has(path)) row.remove()
  if (!paths.has(current)) current = data.rows[wanted === "last" ? data.rows.length - 1 : 0]?.path
  let at = list.firstChild
  data.rows.forEach((row, place) => {
    const element = there.get(row.path) || newCard(null, row.path)
    if (element === at) at = at.nextSibling
    else list.insertBefore(element, at)
    drawCard(element, expected(row), place)
  })
  // Moving an element takes the focus from it, and one that went has taken it along.
  if (focused && focused !== root.getRootNode().activeElement && !part("list").contains(root.getRootNode().activeElement)) {
    focused.isConnected ? focused.focus() : cardOf(current)?.focus()
  }
}

function drawChoices() {
  const { texts } = data
  for (const name of ["filter", "order", "layout"]) {
    const select = part(name), options = Object.entries(data.choices[name])
    const shown = JSON.stringify(options)
    if (select.shown !== shown) {
      select.replaceChildren(...options.map(([value, text]) => new Option(text, value)))
      select.shown = shown
    }
    select.setAttribute("aria-label", texts[name])
    if (!outbox.some(message => message.show)) select.value = data.choice[name]
  }
  const search = part("search")
  search.placeholder = search.ariaLabel = texts.search
  if (search !== root.getRootNode().activeElement) search.value = data.choice.words
  const describe = part("describe"), written = describe.value === (describe.shown || "") // and sent
  part("find").hidden = !data.finds
  part("answer").hidden = !data.found
  part("all").hidden = !data.more
  part("order").disabled = data.ranked
  describe.placeholder = describe.ariaLabel = texts.describe
  if (written && !outbox.some(message => message.show)) describe.value = describe.shown = data.choice.described
  if (part("found").textContent !== data.found) part("found").textContent = data.found
  for (const [name, text] of Object.entries({ go: "find", all: "show_all", back: "whole_list" })) part(name).textContent = texts[text]
  for (const name of ["undo", "next", "previous"]) part(name).textContent = texts[name]
  part("keys").textContent = texts.keys
  part("list").setAttribute("aria-label", texts.list_label)
  part("list").setAttribute("aria-rowcount", data.total)
  part("list").dataset.layout = data.choice.layout
  const last = Math.min(data.total, data.choice.first + data.size)
  part("place").textContent = data.total
    ? texts.page_of.replace("{first}", data.choice.first + 1).replace("{last}", last).replace("{total}", data.total) : texts.nothing_here
  part("previous").disabled = !data.choice.first
  part("next").disabled = last >= data.total
}

// Say what has happened to what was told.
function hear(before) {
  const arrived = outbox.filter(message => message.number <= (data.done[TAB] || 0))
  outbox = outbox.filter(message => !arrived.includes(message))
  store("captionerOutbox", outbox.filter(message => message.path !== undefined))
  if (!outbox.length) clearTimeout(timer)
  const last = arrived.filter(message => message.path !== undefined).pop(), trouble = last && rowOf(last.path)?.trouble
  if (last) status(trouble || data.texts[data.lasting ? "saved" : "kept"].replace("{name}", nameOf(last.path)))
  if (arrived.some(message => message.show)) asked = false
  if (arrived.some(message => message.undo)) {
    const [, path] = data.undone
    status(path ? data.texts.undone.replace("{name}", nameOf(path)) : data.texts.nothing_to_undo)
    if (rowOf(path)) return () => focus(path)
  }
  if (wanted && data.choice.first !== before) {
    const path = data.rows.at(wanted === "last" ? -1 : 0)?.path
    wanted = ""
    return () => focus(path)
  }
}

export default function ({ data: news, parentElement, setStateValue }) {
  say = value => setStateValue("said", value)
  root = parentElement.querySelector(".work")
  if (!root.firstChild) build()
  const before = data
  data = news
  // The picture whose box is open stays, whatever the order has become.
  if (draft && before.rows.some(row => row.path === draft.path) && !rowOf(draft.path)) data = { ...news, rows: before.rows }
  const then = hear(before.choice.first), again = before.server !== data.server
  if (before.held && !data.held) asked = false // a search has sorted the pictures anew
  if (again) {
    asked = false
    part("describe").shown = "" // so that it stays in the box
    outbox = outbox.filter(message => message.path !== undefined)
  }
  // Until somebody works here, the first picture is the current one. It has the focus unless something else has it.
  const idle = !asked && !data.held && !draft
  if (idle) current = data.rows[0]?.path
  drawChoices()
  draw()
  const focused = root.getRootNode().activeElement
  if (then) then()
  else if ((idle && focused?.matches(".card")) || document.activeElement === document.body) {
    const card = cardOf(draft?.path ?? current)
    const target = card?.querySelector("textarea") ?? card
    target?.focus({ preventScroll: true })
  }
  if (again) send()
  const refresh = () => draw()
  document.addEventListener("captioner-previews", refresh)
  return () => document.removeEventListener("captioner-previews", refresh)
}
