// Words go in as text, never as HTML. Each run builds the row again, so the focus has to be restored.
export default function ({ data, parentElement, setStateValue }) {
  const row = parentElement.querySelector("[role=group]");
  const focused = [...row.children].indexOf(parentElement.activeElement);
  row.setAttribute("aria-label", data.label);
  row.replaceChildren(...data.words.map(([word, share, probability], place) => {
    const button = document.createElement("button");
    const [text, number] = [document.createElement("span"), document.createElement("small")];
    text.textContent = word;
    number.textContent = share;
    button.append(text, number);
    button.type = "button";
    button.style.setProperty("--probability", probability);
    button.setAttribute("aria-pressed", place === data.chosen);
    button.onclick = () => setStateValue("chosen", place);
    return button;
  }));
  if (focused >= 0 && row.children[focused]) row.children[focused].focus();
}
