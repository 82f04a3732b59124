// What a visitor sees and does. The model works in worker.js.

import { percent } from "./words.js";

const NEEDED = { WebAssembly: "WebAssembly", Worker: "workers", DecompressionStream: "DecompressionStream",
  OffscreenCanvas: "OffscreenCanvas", createImageBitmap: "createImageBitmap" };
const SURE = { "": "Sure", "not sure": "Not sure", unfamiliar: "Not the kind of picture I know" };
const UNREADABLE = "it is damaged, or no picture that this browser can read";

const one = (selector, parent = document) => parent.querySelector(selector);
const say = (text) => { one("#status").textContent = text; };
const cards = new Map(); // by the number of the picture
const waiting = []; // what the model is asked before it listens
let worker, listening = false, language = "", number = 0, outdated = false;

start();

async function start() {
  const missing = Object.keys(NEEDED).filter((name) => !(name in globalThis)).map((name) => NEEDED[name]);
  one("#drop").hidden = missing.length > 0;
  if (missing.length) return say(`This browser lacks ${missing.join(", ")}. Use a newer one, please.`);
  say("Loading the model…");
  const kept = await keep();
  worker = bound("worker.js");
  worker.onerror = () => say("The model cannot be loaded: this browser does not run it. Use a newer one, please.");
  worker.onmessage = ({ data }) => {
    listening = true;
    for (const question of waiting.splice(0)) worker.postMessage(question);
    if (data.failed) return say(`The model cannot be loaded: ${data.failed}.`);
    if (data.ready) {
      language = data.language;
      if (!outdated) say(kept ? "Ready. This page now works without a network, too." : "Ready.");
      return undefined;
    }
    if (cards.has(data.id)) cards.get(data.id)(data);
  };
  return undefined;
}

/**
 * A worker that runs a module of this folder and is bound by the page's Content-Security-Policy. One from the module's
 * own address would be bound by nothing: the policy would have to come with the answer, and plain servers send none.
 */
function bound(module) {
  // Nor may it start other workers from addresses. index.html cannot say so: the service worker is started from one.
  const policy = { httpEquiv: "Content-Security-Policy", content: "worker-src blob:" };
  document.head.append(Object.assign(document.createElement("meta"), policy));
  const program = `import(${JSON.stringify(new URL(module, import.meta.url))}).catch(reportError);`;
  return new Worker(URL.createObjectURL(new Blob([program], { type: "text/javascript" })), { type: "module" });
}

/** Wait until the service worker has all files. Gives whether it has: where it may not run, the page works without. */
async function keep() {
  const { serviceWorker } = navigator;
  if (!serviceWorker) return false;
  serviceWorker.onmessage = ({ data }) => {
    if (!worker) say(`Loading the model… ${percent(data.share)}`);
  };
  if (serviceWorker.controller) {
    serviceWorker.oncontrollerchange = () => {
      outdated = true;
      say("There is a new version of this page. Load it again to use it.");
    };
  }
  try {
    const registration = await serviceWorker.register("sw.js");
    if (registration.active) return true;
    const coming = registration.installing ?? registration.waiting;
    await new Promise((done) => {
      coming.onstatechange = () => ["activated", "redundant"].includes(coming.state) && done();
    });
    return coming.state === "activated";
  } catch {
    return false;
  }
}

/** Caption files, the first one on top. */
function add(files) {
  if (!files.length) say("That was no picture file. Save the picture first, then choose or drop its file.");
  for (const file of [...files].reverse()) show(file);
}

function show(file) {
  const id = number++, card = one("#card").content.cloneNode(true).firstElementChild;
  const [picture, copy, gone] = [one("img", card), one(".copy", card), one(".remove", card)];
  one(".name", card).textContent = file.name;
  copy.setAttribute("aria-label", `Copy the caption of ${file.name}`);
  copy.onclick = () => copied([one(".caption", card)], copy);
  gone.setAttribute("aria-label", `Remove ${file.name}`);
  gone.onclick = () => remove([card]);
  cards.set(id, (answer) => (answer.error ? refuse(card, answer.error) : fill(card, answer)));
  picture.onload = () => {
    const question = { id, file, shown: { width: picture.naturalWidth, height: picture.naturalHeight } };
    if (listening) worker.postMessage(question);
    else waiting.push(question);
  };
  picture.onerror = () => refuse(card, UNREADABLE);
  picture.src = URL.createObjectURL(file);
  card.dataset.number = id;
  one("#pictures").prepend(card);
  arrange();
}

function refuse(card, reason) {
  card.dataset.state = "refused";
  one("img", card).remove();
  one(".caption", card).textContent = `This file has no caption: ${reason}.`;
  arrange();
}

/** Show a caption. All texts go in as text, never as HTML: a vocabulary may hold anything. */
function fill(card, { caption, seconds }) {
  const [text, words, details] = [one(".caption", card), one(".words", card), one("details", card)];
  text.textContent = caption.text || "(no words)";
  one("img", card).alt = caption.text;
  for (const part of [text, words, one(".others", card)]) part.lang = language;
  for (const { word, probability } of caption.words) {
    const entry = document.createElement("li"), share = document.createElement("small");
    share.textContent = percent(probability);
    share.lang = "en";
    entry.append(word, share);
    entry.style.setProperty("--probability", probability);
    words.append(entry);
  }
  for (const other of caption.others) {
    one(".others", card).append(Object.assign(document.createElement("li"), { textContent: other }));
  }
  card.dataset.state = caption.doubt || "sure";
  const known = caption.perWord === undefined;
  one(".sure", card).textContent = known ? SURE[caption.doubt] : `${percent(caption.perWord)} per word`;
  const why = known
    ? `${percent(caption.confidence)} is the probability that this caption is right. ` +
      `${percent(caption.familiar)} is the probability that the picture is of the kind that the model learned from. `
    : "The number is the geometric mean of the probabilities of the words. ";
  one(".why", card).textContent = `${why}It took ${seconds.toFixed(2)} seconds.`;
  for (const part of [words, details, one(".copy", card)]) part.hidden = false;
  one(".others", card).hidden = one(".also", card).hidden = !caption.others.length;
  arrange();
}

/** Copy captions, one a line. Where the browser does not allow it, they are selected instead. */
async function copied(captions, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(captions.map((caption) => caption.textContent).join("\n"));
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(captions[0]);
    for (const caption of captions) getSelection().extend(caption, caption.childNodes.length);
    button.textContent = "Selected: copy it with the keyboard";
  }
  setTimeout(() => { button.textContent = before; }, 3000);
}

function remove(gone) {
  for (const card of gone) {
    cards.delete(Number(card.dataset.number));
    if (one("img", card)) URL.revokeObjectURL(one("img", card).src);
    card.remove();
  }
  arrange();
  one("#files").focus(); // the button that had the focus is gone
}

/** Buttons for all pictures make sense only with several. */
function arrange() {
  const number = document.querySelectorAll("#pictures > li").length;
  one("#all").hidden = number < 2;
  one("#copy-all").hidden = !finished().length;
}

const finished = () => [...document.querySelectorAll("#pictures > li[data-state]:not([data-state=refused]) .caption")];

one("#files").onchange = ({ target }) => {
  add(target.files);
  target.value = ""; // so that the same file can be chosen again
};
one("#copy-all").onclick = ({ target }) => copied(finished(), target);
one("#clear").onclick = () => remove([...one("#pictures").children]);

// The whole page takes pictures: a browser would leave it for one that is dropped beside the box.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  add(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => add(event.clipboardData.files));

const [viewfinder, video] = [one("#viewfinder"), one("video")];
const CAMERA = {
  NotAllowedError: "The camera is not allowed for this page. Allow it in the browser's settings.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use by another program.",
};

one("#camera").onclick = async () => {
  const note = one("[role=status]", viewfinder);
  note.textContent = "Waiting for the camera…";
  one("#shoot").disabled = true;
  viewfinder.showModal();
  try {
    if (!navigator.mediaDevices) throw new Error("Browsers allow the camera over https only.");
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    video.srcObject = stream;
    if (!viewfinder.open) return stop(); // closed while the visitor was asked
    await video.play();
    one("#shoot").disabled = false;
    note.textContent = "";
  } catch (error) {
    note.textContent = CAMERA[error.name] ?? error.message;
  }
  return undefined;
};
one("#shoot").onclick = async () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  viewfinder.close();
  const blob = await new Promise((done) => { canvas.toBlob(done, "image/png"); });
  add([new File([blob], `Photo ${number + 1}.png`, { type: "image/png" })]);
};
one("#close").onclick = () => viewfinder.close();
viewfinder.onclose = stop;

function stop() {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}
