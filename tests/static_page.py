"""The page of `captioner export --web` in a real browser, for tests and benchmarks: a server and a visitor."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from browser import Visitor

# What stands on the page: a list of pictures, each with its texts by the class of their element.
_CARDS = """return [...document.querySelectorAll("#pictures > li")].map(card => Object.fromEntries([
  ["state", card.dataset.state ?? ""], ["alt", card.querySelector("img")?.alt ?? ""],
  ["lang", card.querySelector(".caption").lang],
  ...["name", "caption", "sure", "why"].map(part => [part, card.querySelector("." + part).textContent]),
  ["words", [...card.querySelectorAll(".words li")].map(word => [...word.childNodes].map(part => part.textContent))],
  ["others", [...card.querySelectorAll(".others li")].map(other => other.textContent)]]))"""
# Files as they come out of a drop or a paste.
_FILES = """const transfer = new DataTransfer();
for (const [name, content] of arguments[0]) {
  transfer.items.add(new File([Uint8Array.from(atob(content), letter => letter.charCodeAt(0))], name));
}
"""
_DROP = 'document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }))'
_PASTE = 'document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }))'
_PIXELS = """const [content, size, done] = arguments;
const file = new File([Uint8Array.from(atob(content), letter => letter.charCodeAt(0))], "picture");
const shown = new Image();
shown.onload = async () => {
  const { readPixels } = await import("./pixels.js");
  const pixels = await readPixels(file, size, { width: shown.naturalWidth, height: shown.naturalHeight });
  done(btoa([...pixels].map(value => String.fromCharCode(value)).join("")));
};
shown.src = URL.createObjectURL(file)"""


class Card(NamedTuple):
    """A picture on the page."""

    state: str  # "sure", "not sure", "unfamiliar" or "refused"; empty as long as it has no caption
    alt: str
    lang: str
    name: str
    caption: str
    sure: str
    why: str
    words: list[list[str]]  # pairs of a word and its probability
    others: list[str]


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Folder:
    """A folder that is being served, on a port of its own that it keeps."""

    def __init__(self, folder: Path) -> None:
        self._handler = partial(_Handler, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler)
        self.address = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """End serving. What comes afterwards is refused."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def served(folder: Path) -> Iterator[Folder]:
    """Serve a folder on this machine."""
    server = Folder(folder)
    try:
        yield server
    finally:
        server.stop()


class PageVisitor(Visitor):
    """A person at the page: what they see and do."""

    def __enter__(self) -> PageVisitor:
        return self

    def open(self, view: str = "") -> None:
        """Go to the page, and wait until the model is there."""
        self.driver.get(f"{self.address}/{view}")
        self.wait(lambda: self.status().startswith("Ready"))

    def status(self) -> str:
        """What the page says of itself."""
        return " ".join(self.texts("#status"))

    def cards(self) -> list[Card]:
        """The pictures on the page, the first one on top."""
        return [Card(**card) for card in self.driver.execute_script(_CARDS)]

    def finished(self, number: int, seconds: float = 60) -> list[Card]:
        """The pictures, once as many as that have captions or are refused."""
        self.wait(lambda: sum(bool(card.state) for card in self.cards()) == number, seconds)
        return self.cards()

    def choose(self, *files: Path) -> None:
        """Choose files in the file dialog."""
        self.all("#files")[0].send_keys("\n".join(map(str, files)))

    def drop(self, *files: Path) -> None:
        """Drop files on the page."""
        self.driver.execute_script(_FILES + _DROP, _contents(files))

    def paste(self, *files: Path) -> None:
        """Paste files into the page."""
        self.driver.execute_script(_FILES + _PASTE, _contents(files))

    def pixels(self, file: Path, size: int) -> bytes:
        """What the encoder gets to see of a picture, (S, S, 3)."""
        self.driver.set_script_timeout(60)
        found = self.driver.execute_async_script(_PIXELS, base64.b64encode(file.read_bytes()).decode(), size)
        return base64.b64decode(found)

    def wait(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Until something is the case."""
        try:
            super().wait(condition, seconds)
        except AssertionError:
            raise AssertionError(f"not within {seconds} s; the page says: {self.texts('body')}") from None

    def _resting(self) -> bool:
        return True


def _contents(files: Sequence[Path]) -> list[tuple[str, str]]:
    return [(file.name, base64.b64encode(file.read_bytes()).decode()) for file in files]
