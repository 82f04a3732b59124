"""Captions in JSON: COCO's, Karpathy's splits, lists of objects, objects by the names of pictures, and JSON lines."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

from captioner.data.readers.base import Entry, names_picture
from captioner.data.readers.columns import places_of
from captioner.data.readers.wording import texts_of
from captioner.errors import DataError

_WRAPPERS = ("data", "annotations", "captions", "results", "rows")  # names of the list in an object that wraps one


def read_lines(lines: Iterable[str], notes: list[str]) -> Iterator[Entry]:
    """Read JSON lines, one object a line. Raises DataError."""
    objects = (
        (parsed(line, f"line {number} is not JSON"), f"line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )
    yield from _entries(objects, notes)


def parsed(text: str, complaint: str) -> Any:
    """Parse JSON. Raises DataError, which begins with the complaint, if the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{complaint} ({error})") from error


def form_of(content: Any) -> str | None:
    """The layout of a JSON document, in words; None if it holds no captions."""
    if isinstance(content, list):
        return "JSON list"
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("images"), list) and not _is_entry(content):
        return "COCO captions JSON" if isinstance(content.get("annotations"), list) else "Karpathy split JSON"
    if _wrapped(content):
        return "JSON list"
    return "JSON object by picture" if not _is_entry(content) and content and _by_picture(content) else None


def read(content: Any, form: str, notes: list[str]) -> Iterator[Entry]:
    """Read a JSON document whose layout is `form`. Raises DataError."""
    if form == "COCO captions JSON":
        yield from _coco(content, notes)
    elif form == "Karpathy split JSON":
        yield from _karpathy(content["images"])
    elif form == "JSON object by picture":
        for name, value in content.items():  # kohya's metadata may have tags only
            texts = texts_of(value.get("caption") if isinstance(value, dict) else value)
            if texts is None:
                raise needs(repr(name), value)
            yield Entry(name, texts)
    else:
        rows = _wrapped(content) if isinstance(content, dict) else content
        yield from _entries(((row, f"entry {number}") for number, row in enumerate(rows, start=1)), notes)


def _wrapped(content: dict[str, Any]) -> list[Any]:
    """The list of objects in an object that wraps it, such as TextCaps's; empty if there is none."""
    lists = (content.get(name) for name in _WRAPPERS)
    return next((rows for rows in lists if isinstance(rows, list) and rows and isinstance(rows[0], dict)), [])


def _is_entry(content: dict[str, Any]) -> bool:
    """Whether an object has a picture and a caption, a conversation or an error in the place of one."""
    names = tuple(content)
    images, caption, *_ = places_of(names)
    told = caption is not None or not {"conversations", "messages", "error"}.isdisjoint(names)
    return told and bool(images or "images" in names)


def _by_picture(content: dict[str, Any]) -> bool:
    """Whether the names in an object are those of pictures: they say so, or what they lead to does."""
    name, value = next(iter(content.items()))
    if isinstance(value, dict):
        return "caption" in value or "tags" in value
    return ((names_picture(name) or name.isdigit()) and isinstance(value, str | list)) or (
        isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)
    )


def _entries(objects: Iterable[tuple[Any, str]], notes: list[str]) -> Iterator[Entry]:
    """The entries of JSON objects, each with the words that name it in errors. Raises DataError."""
    failed, longer = 0, 0
    for content, what in objects:
        if isinstance(content, dict) and content.get("error") and content.get("caption") is None:
            failed += 1  # a captioner could not read this picture
        else:
            turns = _answers(content)
            longer += len(turns) > 1
            yield entry_of(content, what, turns[:1])
    if failed:
        notes.append(f"rows with an error and no caption, which count as missing: {failed}")
    if longer:
        notes.append(f"conversations with several answers, of which the first is the caption: {longer}")


def _answers(content: Any) -> list[str]:
    """What the model says in a conversation, as in LLaVA's files."""
    turns = next(filter(None, values_of(content, "conversations", "messages")), None)
    found = []
    for turn in turns if isinstance(turns, list) else ():
        who, role, value, text = values_of(turn, "from", "role", "value", "content")
        answer = value if isinstance(value, str) else text
        if ("gpt" in (who, role) or "assistant" in (who, role)) and isinstance(answer, str):
            found.append(answer)
    return found


def entry_of(content: Any, what: str, answers: list[str]) -> Entry:
    """The entry of a JSON object with a picture and its captions. Raises DataError, naming the object by `what`."""
    if isinstance(content, dict):
        names = tuple(content)
        places, caption, split, number = places_of(names)
        of_picture = list(filter(None, (_picture_in(content[names[place]]) for place in places)))
        if not of_picture and isinstance(several := content.get("images"), list) and len(several) == 1:
            of_picture = list(filter(None, [_picture_in(several[0])]))
        name = next(filter(names_picture, of_picture), of_picture[0] if of_picture else None)  # TextCaps has both kinds
        its = content[names[number]] if number is not None else None
        its = its if isinstance(its, str) or type(its) is int else None
        texts: list[str] | None = answers
        if not answers and caption is not None:
            try:
                texts = texts_of(content[names[caption]])
            except DataError as error:
                raise DataError(f"{what} has {error}") from error
        if texts and (name is not None or its is not None):
            where = content[names[split]] if split is not None else ""
            ours = "logprob" in content or "found" in content  # `captioner caption` or `captioner read` wrote it
            unsure = str(content.get("unsure", "")) if ours else None
            return Entry(name, texts, where if isinstance(where, str) else "", its, content.get("words"), unsure)
    raise needs(what, content)


def needs(what: str, content: Any) -> DataError:
    """The error for an object that lacks a picture's name or a caption."""
    return DataError(
        f"{what} needs a picture's name (such as 'image' or 'file_name', in predictions also 'image_id') and a "
        f"caption or a list of them (such as 'caption' or 'text'): {reprlib.repr(content)}"
    )


def _picture_in(value: Any) -> str | None:
    value = value.get("path") if isinstance(value, dict) else value  # Hugging Face
    return value if isinstance(value, str) else None


def _coco(content: dict[str, Any], notes: list[str]) -> Iterator[Entry]:
    names: dict[int | str, str] = {}
    rejected = 0
    for number, image in enumerate(content["images"], start=1):
        key, name = values_of(image, "id", "file_name")
        if name is None and isinstance(image, dict) and "id" in image and "annotations" in content:
            name = str(key)  # LAVIS leaves the names out
        if not isinstance(key, (int, str)) or not isinstance(name, str):
            raise DataError(f"entry {number} of 'images' needs an 'id' and a 'file_name'")
        if names.setdefault(key, name) != name:
            raise DataError(f"id {key!r} stands for {names[key]!r} and {name!r} in 'images'")
    for number, annotation in enumerate(content["annotations"], start=1):
        key, caption = values_of(annotation, "image_id", "caption")
        if not isinstance(key, (int, str)) or not isinstance(caption, str):
            raise DataError(
                f"entry {number} of 'annotations' needs an 'image_id' and a 'caption' (COCO's captions_*.json has them)"
            )
        if key not in names:
            raise DataError(f"entry {number} of 'annotations' has the image_id {key!r}, which is not in 'images'")
        if annotation.get("is_rejected") or annotation.get("is_precanned"):  # VizWiz leaves them out, too
            rejected += 1
        else:
            yield Entry(names[key], [caption], "", key)
    if rejected:
        notes.append(f"captions that are left out, because the file marks them as rejected or precanned: {rejected}")


def _karpathy(images: list[Any]) -> Iterator[Entry]:
    for number, image in enumerate(images, start=1):
        name, sentences, folder, split = values_of(image, "filename", "sentences", "filepath", "split")
        its = next((key for key in values_of(image, "cocoid", "imgid") if type(key) is int), None)
        if not isinstance(name, str) or not isinstance(sentences, list):
            raise DataError(f"entry {number} of 'images' needs a 'filename' and 'sentences', or COCO's 'annotations'")
        if isinstance(folder, str) and folder:
            name = f"{folder}/{name}"
        for sentence in sentences:
            raw, tokens = values_of(sentence, "raw", "tokens")
            if raw is None and isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
                raw = " ".join(tokens)
            if not isinstance(raw, str):
                raise DataError(f"a sentence of entry {number} of 'images' has neither 'raw' nor 'tokens'")
            yield Entry(name, [raw], split if isinstance(split, str) else "", its)


def values_of(content: Any, *names: str) -> list[Any]:
    """The values of an object in JSON; None for each that it lacks, and for all if the content is no object."""
    return [content.get(name) if isinstance(content, dict) else None for name in names]
