"""Captions that a person looks at one by one: what they write, what they take back, and in which order they see them.

The browser sends changes as numbered messages, and again until it is told that they arrived. Each is done once.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, replace
from typing import Any

import captioner
from captioner.errors import CaptionerError
from captioner.inference.reader import Reader
from captioner.inference.results import Row
from captioner.inference.trust import NOT_SURE, UNFAMILIAR
from captioner.page.search import Answer

PAGE = 24  # pictures that are shown at a time
BEST = 20  # pictures that a search shows, unless a person wants all
SIDE = 360  # of a preview, in pixels
PART = 8  # pictures after which other visitors, and the person's own changes, get their turn
SERVER = secrets.token_hex(8)  # by which the browser knows a server that was started again
FILTERS = ("all", "to_do", "not_sure", "unfamiliar", "changed")
ORDERS = ("least_sure", "by_name")
LAYOUTS = ("gallery", "table")
_TABS = 20  # whose last messages are remembered


@dataclass(frozen=True)
class Choice:
    """What a person chose to see."""

    filter: str = FILTERS[0]
    order: str = ORDERS[0]
    layout: str = LAYOUTS[0]
    words: str = ""
    described: str = ""  # what the pictures that the person looks for show
    everything: bool = False  # whether a search shows all pictures and not only the best
    first: int = 0  # the place of the first picture that is shown


class Work:
    """Pictures by path, with the captioner's rows and the person's. A picture without a row waits for its caption."""

    def __init__(self) -> None:
        self.found: dict[str, Row] = {}  # what the captioner wrote, or a file held
        self.changed: dict[str, Row] = {}  # what the person made of it
        self.previews: dict[str, str] = {}  # `data:` URIs of pictures of at most SIDE pixels
        self.refused: dict[str, tuple[str | None, str]] = {}  # the person's text that could not be written, and why
        self.choice = Choice()
        self.answer = Answer()
        self.encoded = (0, 0)  # how many pictures a search that waits has looked at, and how many there are
        self.matching = 0  # pictures that the filter lets through
        self.done: dict[str, int] = {}  # the number of the last message that was done, by tab
        self.undone: tuple[int, str] = (0, "")  # how many times something was taken back, and which picture's
        self._before: list[tuple[str, Row | None]] = []  # what the last changes replaced
        self._order: list[str] = []
        self.held = False  # whether pictures that were shown stay in their places
        self.lock = threading.RLock()  # held while a caption is changed or written

    def paths(self) -> list[str]:
        """All pictures by name, those that wait included."""
        return sorted(self.found)

    def row(self, path: str) -> Row | None:
        """The caption that counts."""
        return self.changed.get(path) or self.found.get(path)

    def looked_up(self, path: str) -> Row | None:
        """The caption that counts, also if nobody has looked for it yet. None if there is no such picture."""
        return self.row(path)

    def rows(self) -> list[Row]:
        """The captions that count, and the reasons why pictures have none, in the order in which they came."""
        return [self.changed.get(path, row) for path, row in self.found.items()]

    def captioned(self) -> list[Row]:
        """The rows of pictures that have a caption."""
        return [row for row in self.rows() if "caption" in row]

    def receive(self, tab: str, messages: list[dict[str, Any]]) -> None:
        """Do what messages of a browser's tab say, each once, in the order of their numbers."""
        with self.lock:
            for message in sorted(messages, key=lambda message: int(message["number"])):
                if int(message["number"]) <= self.done.get(tab, 0):
                    continue
                if "path" in message:
                    self.change(message["path"], message["text"], message["seen"])
                elif "undo" in message:
                    self.undo()
                elif "show" in message:
                    self.show(message["show"])
                self.held |= "hold" in message
                self.done[tab] = int(message["number"])
                for old in list(self.done)[:-_TABS]:
                    del self.done[old]

    def change(self, path: str, text: str, seen: str) -> None:
        """Let a person's text count in place of the one that they saw. The same text means that they accept it."""
        row, text = self.looked_up(path), " ".join(str(text).split())
        if row is None:
            return
        if "caption" not in row:
            self.refuse(path, text, row["error"])
            return
        there = row.get("author") == "person" and " ".join(row["caption"].split()) == text  # line breaks stay
        if not there and not self.save(path, text, seen):
            return
        self.refused.pop(path, None)
        if there:
            return
        self._before.append((path, self.changed.get(path)))
        found = self.found[path]
        of_text = {"unsure"} if text == found["caption"] else found.keys() - {"path", "familiar", "tags"}
        kept = {name: value for name, value in found.items() if name not in of_text}
        self.changed[path] = {**kept, "caption": text, "author": "person"}

    def undo(self) -> None:
        """Take the last change back."""
        path = ""
        if self._before:
            path, before = self._before[-1]
            if self.save_again(path, before or self.found[path], self.changed[path]["caption"]):
                self._before.pop()
                self.changed.pop(path)
                self.changed.update({path: before} if before else {})
        self.undone = (self.undone[0] + 1, path)

    def refuse(self, path: str, text: str | None, reason: str) -> bool:
        """Keep a person's text that could not be written, until they decide. What is in `found` counts again."""
        self.refused[path] = (text, reason)
        self.changed.pop(path, None)
        self._before = [change for change in self._before if change[0] != path]
        return False

    def save(self, path: str, text: str, seen: str) -> bool:
        """Write a person's text to where it lasts. False if it is `refused`."""
        return True

    def save_again(self, path: str, row: Row, seen: str) -> bool:
        """Write what a change replaced. False if it is `refused`."""
        return True

    def advance(self, model: captioner.Captioner) -> bool:
        """Do the next bit of work. False when all is done."""
        raise NotImplementedError

    def left(self) -> tuple[int, int]:
        """How many pictures are done, and how many there are."""
        raise NotImplementedError

    def ranked(self, model: captioner.Captioner, reader: Reader, text: str) -> list[str] | None:
        """The pictures that can be found, those that a text describes best first. None while they are not ready.

        Raises CaptionerError and OSError.
        """
        raise NotImplementedError

    def search(self, model: captioner.Captioner, reader: Reader | None) -> None:
        """Look for what the person described. When the answer is there, pictures are sorted anew."""
        text, answer = self.choice.described, Answer()
        if text and reader:
            unknown = reader.unknown(text)
            answer = Answer((text, model.path), unknown=unknown)
            try:
                if lost := not {*reader.vocabulary.tokenise(text)} - {*unknown}:
                    answer = replace(answer, lost=lost)
                elif (paths := self.ranked(model, reader, text)) is not None:
                    answer = replace(answer, ranks={path: rank for rank, path in enumerate(paths)})
            except (CaptionerError, OSError) as error:
                answer = replace(answer, problem=str(error))
        with self.lock:
            came = answer.ranks is not None and (self.answer.ranks is None or self.answer.asked != answer.asked)
            if came and text == self.choice.described:
                self.held, self.choice = False, replace(self.choice, first=0)
            self.answer = answer

    def show(self, wanted: dict[str, Any]) -> None:
        """Choose what to see. Another filter or order sorts anew; another page leaves pictures in their places."""
        known = {"filter": FILTERS, "order": ORDERS, "layout": LAYOUTS}
        new = {name: wanted[name] for name, values in known.items() if wanted.get(name) in values}
        new |= {name: str(wanted[name])[:200] for name in ("words", "described") if name in wanted}
        if "everything" in wanted or "described" in wanted:
            new["everything"] = wanted.get("everything") is True
        if new.keys() - {"layout"}:
            new["first"], self.held = 0, False
        elif "first" in wanted:
            new["first"] = max(0, int(wanted["first"]))
        self.choice = replace(self.choice, **new)

    def shown(self) -> tuple[list[str], list[str]]:
        """The pictures of the page that is shown, and of all pages. Until somebody works here, all are sorted anew."""
        with self.lock:
            paths = self.paths()
            wanted = list(filter(self._wanted, paths))
            self.matching, ranks = len(wanted), self.answer.ranks
            if ranks is not None:
                wanted.sort(key=lambda path: ranks.get(path, len(ranks)))
                if not self.choice.everything:
                    wanted = [path for path in wanted if path in ranks][:BEST]
            elif self.choice.order == "least_sure":
                wanted.sort(key=self._sureness)
            if self.held:
                there = set(paths)
                kept = [path for path in self._order[: self.choice.first + PAGE] if path in there]
                wanted = kept + [path for path in wanted if path not in set(kept)]
            self._order = wanted
            last = max(0, len(wanted) - 1) // PAGE * PAGE
            self.choice = replace(self.choice, first=min(self.choice.first // PAGE * PAGE, last))
            return wanted[self.choice.first : self.choice.first + PAGE], wanted

    def state(self, path: str) -> str:
        """Waiting, failed, written by the captioner, or checked or rejected by a person."""
        row = self.row(path)
        if row is None or "error" in row:
            return "failed" if row else "waiting"
        return ("checked" if row["caption"] else "rejected") if row.get("author") == "person" else "written"

    def _wanted(self, path: str) -> bool:
        row, state = self.row(path) or {}, self.state(path)
        if self.choice.words.lower() not in f"{row.get('caption', '')} {path}".lower():
            return False
        if self.choice.filter == "to_do":
            return state in ("waiting", "written")
        if self.choice.filter == "changed":
            accepted = path in self.changed and row["caption"] == self.found[path]["caption"]
            return row.get("author") == "person" and not accepted
        doubt = {"not_sure": NOT_SURE, "unfamiliar": UNFAMILIAR}.get(self.choice.filter)
        return doubt is None or self.found.get(path, {}).get("unsure") == doubt

    def _sureness(self, path: str) -> float:
        state = self.state(path)
        rank = {"waiting": 2.0, "checked": 3.0, "rejected": 3.0, "failed": 4.0}
        return rank.get(state, 0.0) if state != "written" else float((self.row(path) or {}).get("confidence", 1.0))
