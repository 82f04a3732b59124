"""Alternative text for the pictures of documents: `alt_texts`."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from captioner.documents.document import find_documents, write_document
from captioner.documents.gaps import Gap, find_gaps, is_tiny
from captioner.documents.html import Image
from captioner.documents.source import Source
from captioner.errors import CaptionerError, ImageError, OptionError, one_line, reason_of
from captioner.files import AnyPath, cache_folder, listed, sha256_of
from captioner.network.header import find_checkpoint
from captioner.pictures.load import picture_size

if TYPE_CHECKING:  # it imports torch, for which a list need not wait
    from captioner.inference.results import Caption, FileResult

MIN_CONFIDENCE = 0.5
_VERSION = 2  # of what is kept in the cache
_TABLE = """CREATE TABLE IF NOT EXISTS captions
    (picture TEXT, model TEXT, text TEXT NOT NULL, confidence REAL NOT NULL, PRIMARY KEY (picture, model))"""


class _Words(NamedTuple):
    """What a caption says, and how sure of it the model is, from 0 to 1."""

    text: str
    confidence: float

    @classmethod
    def of(cls, caption: Caption) -> _Words:
        """What `min_confidence` is compared with. A change here needs another _VERSION."""
        from captioner.inference.trust import UNFAMILIAR

        if caption.confidence is None:
            return cls(caption.text, caption.mean_probability)
        return cls(caption.text, 0.0 if caption.unsure == UNFAMILIAR else caption.confidence)


_Answer: TypeAlias = "_Words | ImageError"


@dataclass(frozen=True)
class AltTexts:
    """What `alt_texts` found and did."""

    documents: int  # that were looked through
    gaps: list[Gap]  # the pictures that lacked alternative text, in the order of the documents
    errors: list[str]  # a line for each document that could not be read or written, naming it


def alt_texts(
    paths: AnyPath | Iterable[AnyPath],
    *,
    write: bool = False,
    decorative: bool = False,
    fetch: bool = False,
    min_confidence: float = MIN_CONFIDENCE,
    checkpoint: AnyPath | None = None,
    progress: Callable[[Iterable[Any]], Iterator[Any]] = iter,
) -> AltTexts:
    """Find the pictures without alternative text in documents, and fill it in; what `captioner alt` does.

        for gap in captioner.alt_texts("site").gaps:
            print(gap.document, gap.line, gap.picture, gap.state)

    `paths` are Markdown, HTML and EPUB files, and folders, which are searched with their subfolders.
    With `write`, a picture gets its caption as alternative text if the model's confidence is at least
    `min_confidence`. The documents change nowhere else; one that changes meanwhile is left alone. `decorative` also
    writes alt="" for pictures that look decorative. `fetch` also captions pictures on the web, from public addresses.
    Captions are kept in the cache folder, so a model is loaded only for pictures that `checkpoint` never saw.
    `progress` is called with the results as they come, and passes them on.
    A document or a picture that cannot be read does not stop the others. Raises InputError where `paths` lead to no
    documents, OptionError, CheckpointError.
    """
    for name, given in (("decorative", decorative), ("fetch", fetch)):
        if given and not write:
            raise OptionError(f"{name} (--{name}) goes with write (--write) only")
    if not 0.0 <= min_confidence <= 1.0:
        raise OptionError(f"min_confidence (--min-confidence) must be from 0 to 1, not {min_confidence}")
    documents = find_documents(listed(paths))
    gaps: list[Gap] = []
    errors: list[str] = []
    for document in documents:
        with noting(errors, document):
            gaps += list(find_gaps(document))  # all or none of them
    if write:
        states = {"lacking", "remote"} if fetch else {"lacking"}
        sources = [gap.source if gap.state in states else None for gap in gaps]
        answers = _answers(dict.fromkeys(filter(None, sources)), checkpoint, progress)
        pairs = zip(gaps, sources, strict=True)
        gaps = [_answered(gap, answers[source], min_confidence) if source else gap for gap, source in pairs]
        if decorative:
            gaps = [replace(gap, state="written", text="") if gap.state == "decorative" else gap for gap in gaps]
        files = groupby(gaps, lambda gap: gap.path)
        gaps = list(chain.from_iterable(fill(path, list(group), errors) for path, group in files))
    return AltTexts(len(documents), gaps, errors)


def _answers(
    sources: Iterable[Source], checkpoint: AnyPath | None, progress: Callable[[Iterable[Any]], Iterator[Any]]
) -> dict[Source, _Answer]:
    """A caption for each picture, or why there is none. Equal pictures are captioned once, and none a second time."""
    answers: dict[str, _Answer] = {}  # by digest
    digests: dict[Source, str] = {}
    unreadable: dict[Source, _Answer] = {}
    asked: deque[str] = deque()
    with closing(_Cache(sha256_of(find_checkpoint(checkpoint)) if sources else "")) as cache:

        def unknown() -> Iterator[tuple[str, bytes]]:
            for source in sources:
                try:
                    data = _read(source)
                except ImageError as error:
                    unreadable[source] = error
                    continue
                digest = digests[source] = hashlib.sha256(data).hexdigest()
                if digest in answers or digest in asked:
                    continue
                if words := cache.get(digest):
                    answers[digest] = words
                else:
                    asked.append(digest)
                    yield source.name, data

        pictures = unknown()
        if first := next(pictures, None):
            from captioner.inference.captioner import load

            result: FileResult
            for result in progress(load(checkpoint).caption_named(chain([first], pictures))):
                digest = asked.popleft()  # results come in the order of the pictures
                if result.caption:
                    answers[digest] = words = _Words.of(result.caption)
                    cache.add(digest, words)
                else:
                    answers[digest] = ImageError(result.error)
    return unreadable | {source: answers[digest] for source, digest in digests.items()}


def _read(source: Source) -> bytes:
    data = source.read()
    if source.remote and is_tiny(*picture_size(data, source.name)):
        raise ImageError(f"{source.name}: too small to be more than a spacer or a tracking pixel")
    return data


def _answered(gap: Gap, answer: _Answer, min_confidence: float) -> Gap:
    """The gap with what is to be written into it, or the reason why nothing is."""
    if isinstance(answer, ImageError):
        return replace(gap, state="remote" if gap.state == "remote" else "unreadable", note=str(answer))
    note, sure = f"confidence {answer.confidence:.2f}", answer.confidence >= min_confidence
    return replace(gap, state="written" if sure else "unsure", note=note, text=answer.text)


def fill(path: str, gaps: list[Gap], errors: list[str]) -> list[Gap]:
    """Write the texts of a document; the gaps as they then are."""
    words: dict[str, list[tuple[Image, str]]] = {}
    for gap in gaps:
        if gap.state == "written":
            words.setdefault(gap.member, []).append((gap.image, gap.text or ""))
    failed = len(errors)
    with noting(errors, path):
        if words:
            write_document(path, gaps[0].digest, words)
    if len(errors) == failed:
        return gaps
    return [replace(gap, state="lacking", note="", text=None) if gap.state == "written" else gap for gap in gaps]


@contextmanager
def noting(errors: list[str], path: str) -> Iterator[None]:
    """Note what goes wrong with a document, and go on."""
    try:
        yield
    except (CaptionerError, OSError) as error:
        errors.append(reason_of(error, one_line(path)))


class _Cache:
    """Captions of pictures, by the digests of picture and checkpoint. Where it cannot be kept, it is empty."""

    def __init__(self, checkpoint: str) -> None:
        self._model = f"{_VERSION} {checkpoint}"
        file = cache_folder() / "captions.sqlite"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(file)
            self._database.execute(_TABLE)
        except (OSError, sqlite3.Error):
            self._database = sqlite3.connect(":memory:")
            self._database.execute(_TABLE)

    def get(self, picture: str) -> _Words | None:
        """The caption of a picture that was captioned before."""
        with suppress(sqlite3.Error):
            query = "SELECT text, confidence FROM captions WHERE picture = ? AND model = ?"
            row = self._database.execute(query, (picture, self._model)).fetchone()
            return _Words(*row) if row else None
        return None

    def add(self, picture: str, words: _Words) -> None:
        """Keep a caption."""
        with suppress(sqlite3.Error):
            query = "INSERT OR REPLACE INTO captions VALUES (?, ?, ?, ?)"
            self._database.execute(query, (picture, self._model, *words))

    def close(self) -> None:
        """Write what was added."""
        with suppress(sqlite3.Error):
            self._database.commit()
        self._database.close()
