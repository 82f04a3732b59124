"""What requests hold: pictures, options, words to begin with, and the form of the answer that they ask for."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse

from captioner.documents.fetch import fetch
from captioner.errors import ImageError, OptionError, one_line
from captioner.inference.results import Caption
from captioner.options import DecodeOptions, option_specs
from captioner.pictures.load import MAX_FILE_BYTES, is_address

MOST = {"num_captions": 20, "beam_size": 20}  # on a server, where a request must not keep others waiting for long
LONGEST = 1000  # characters of a text: a prompt, words to avoid, a sentence
TAGS = 10  # words, where an answer in JSON asks for labels
NO_STEERING = "a prompt cannot steer this model: it describes the picture, whatever the prompt says"
# Begin with "a dog", start the sentence with 'a dog'. Without quotation marks it is an instruction like any other.
_BEGIN = re.compile(
    r"""\b(?:begin|start)(?:s|ning|ing)?\b[^"“'‘«.!?\n]{0,40}\bwith\b[^"“'‘«.!?\n]{0,20}(?:["“«‘]|(?<=[\s:])')"""
    r"""([^"”'’»\n]{1,200})["”'’»]|以["“「]([^"”」\n]{1,200})["”」](?:开头|开始|開頭)""",
    re.IGNORECASE,
)
_READ = 20_000  # characters of a prompt
_CAPTION_NAMES = ("caption", "description", "alt", "alt_text", "alttext", "title", "summary", "text", "response")
_LABEL_NAMES = ("labels", "tags", "keywords", "objects", "categories")


@dataclass(frozen=True)
class Picture:
    """A picture of a request: what to call it, and how to get its bytes, which raises ImageError."""

    name: str
    read: Callable[[], bytes]
    is_far: bool = False  # getting it takes as long as others please


class Json(JSONResponse):
    """JSON that repeats also those texts of a request that are no valid Unicode, as escapes."""

    def render(self, content: Any) -> bytes:
        """The bytes of the answer."""
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")


class _InMemory(MultiPartParser):
    """Files of a form stay in memory, whose limit is that of the request: no picture is kept on a disk."""

    spool_max_size = 1 << 40


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises OptionError for anything else."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise OptionError("the body of the request is not JSON") from error
    if not isinstance(body, dict):
        raise OptionError("the body of the request must be a JSON object")
    return body


async def form_of(request: Request, max_files: int) -> tuple[list[Picture], dict[str, Any]]:
    """The files and the other fields of a form. Raises OptionError."""
    limits = {"max_files": max_files, "max_fields": 1000}
    try:
        form = await _InMemory(request.headers, request.stream(), **limits).parse()
    except (MultiPartException, KeyError) as error:  # KeyError: without a boundary
        reason = getattr(error, "message", "it names no boundary")
        raise OptionError(f"the form cannot be read: {one_line(reason)}") from error
    pictures: list[Picture] = []
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if not isinstance(value, str):
            file = value.file
            pictures.append(Picture(one_line(value.filename or f"picture {len(pictures) + 1}"), file.read))
        elif name in fields:
            fields[name] = [*(fields[name] if isinstance(fields[name], list) else [fields[name]]), value]
        else:
            fields[name] = value
    return pictures, fields


def picture_of(text: object, number: int, allow_fetch: bool) -> Picture:
    """A picture that is given as base64, as a data URL or, if it may be fetched, as an address. Raises OptionError."""
    name = f"picture {number}"
    if isinstance(text, str) and is_address(text):
        if not allow_fetch:
            raise OptionError(f"{name}: this server fetches nothing: send the picture itself, in base64")
        return Picture(one_line(text), partial(fetch, text), is_far=True)
    if not isinstance(text, str) or not text:
        raise OptionError(f"{name}: must be a text, the picture's bytes in base64")
    return Picture(name, partial(_decoded, text, name))


def _decoded(text: str, name: str) -> bytes:
    start, comma, rest = text.partition(",") if text[:5].lower() == "data:" else ("", "", text)
    if start and (not comma or not start.lower().endswith(";base64")):
        raise ImageError(f"{name}: a data URL must be data:image/...;base64,...")
    try:
        return base64.b64decode("".join(rest.split()), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters beyond ASCII
        raise ImageError(f"{name}: is not base64") from error


def picture_in(folder: Path | None, path: object) -> Picture:
    """A picture of the folder that the server may read. Raises OptionError without a folder."""
    if folder is None:
        raise OptionError("this server reads no files: send the picture itself, or start it with --folder DIR")
    name = one_line(path)
    return Picture(name, partial(_content, folder, str(path), name))


def _content(folder: Path, path: str, name: str) -> bytes:
    try:
        found = (folder / path).resolve()  # past all symbolic links
        if found.is_relative_to(folder.resolve()) and found.is_file():
            with found.open("rb") as file:
                return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError, RuntimeError):  # no permission, a null byte, links in a circle
        pass
    raise ImageError(f"{name}: no such file in the folder of this server")  # what is outside may be there or not


def options_of(given: Mapping[str, Any], defaults: DecodeOptions) -> DecodeOptions:
    """The server's options with those of a request, which come as numbers or as the texts of a form.

    Raises OptionError for an unknown name, an impossible value, or one that is too much for a server.
    """
    specs = {spec.name: spec for spec in option_specs(DecodeOptions)}
    if unknown := given.keys() - specs.keys():
        raise OptionError(f"no option {', '.join(sorted(map(repr, unknown)))}: there are {', '.join(specs)}")
    for name, value in given.items():
        check_length(name, value)
    options = replace(defaults, **{name: _typed(value, specs[name].kind) for name, value in given.items()})
    for name in MOST.keys() & given.keys():
        if getattr(options, name) > MOST[name]:
            raise OptionError(f"{name} must be at most {MOST[name]} on a server, not {getattr(options, name)}")
    return options


def check_length(name: str, text: object) -> None:
    """Raise OptionError for a text that is longer than any that is needed."""
    if isinstance(text, str) and len(text) > LONGEST:
        raise OptionError(f"{name} must have at most {LONGEST:,} characters, not {len(text):,}")


def _typed(value: Any, kind: type) -> Any:
    """A value of a form as what an option needs; what it cannot be stays a text, which the option refuses."""
    if not isinstance(value, str) or kind is str:
        return value
    try:
        return {"true": True, "false": False}.get(value.lower(), value) if kind is bool else kind(value)
    except ValueError:
        return value


def begin_with(prompt: str) -> str:
    """The words that a prompt asks captions to begin with; empty if it does not."""
    found = _BEGIN.search(prompt[:_READ])
    return (found[1] or found[2]).strip() if found else ""


def as_json(caption: Caption, schema: object) -> str:
    """A caption and its tags as JSON: of the form of a JSON schema as far as its names are understood, or of ours.

    Raises OptionError for a schema that requires what this model does not know.
    """
    labels = [{"name": tag.word, "confidence": round(tag.probability, 4)} for tag in caption.tags]
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(schema, Mapping) or not isinstance(properties, Mapping):
        return json.dumps({"caption": caption.text, "labels": labels}, ensure_ascii=False)
    filled: dict[str, Any] = {}
    for name, field in properties.items():
        kind, low = field.get("type") if isinstance(field, Mapping) else None, name.lower()
        if kind == "string" and low in _CAPTION_NAMES:
            filled[name] = caption.text
        elif kind == "array" and low in _LABEL_NAMES:
            items = field.get("items")
            plain = isinstance(items, Mapping) and items.get("type") == "string"
            filled[name] = [label["name"] for label in labels] if plain else labels
        elif kind == "number" and low == "confidence" and caption.confidence is not None:
            filled[name] = round(caption.confidence, 4)
    required = schema.get("required")
    if missing := [name for name in required if name not in filled] if isinstance(required, list) else []:
        names = ", ".join(_CAPTION_NAMES + _LABEL_NAMES)
        raise OptionError(f"this model cannot fill in {one_line(missing[0])!r} of the schema: it knows {names}")
    return json.dumps(filled, ensure_ascii=False)
