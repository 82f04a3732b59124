"""Captions inside pictures: XMP in all formats, and the older fields of IPTC and EXIF in JPEG and TIFF.

Needs the extra [metadata], which brings the library exiv2. Pixels and all other metadata stay as they are.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import UnidentifiedImageError

from captioner.errors import DataError, DeviceError, OutputError, one_line, to_install
from captioner.files import decoded, replacing
from captioner.metadata import xmp
from captioner.metadata.containers import EXIF, IPTC, XMP, jpeg_with, png_with, strips, webp_with
from captioner.metadata.xmp import Entry, Held, held, merged
from captioner.options import MetadataOptions
from captioner.pictures.raw import RAW

_DESCRIPTION, _CAPTION = "Exif.Image.ImageDescription", "Iptc.Application2.Caption"
_CHARACTER_SET, _UTF8 = "Iptc.Envelope.CharacterSet", "\x1b%G"
_OLDER_FIELDS, _CHUNKED = ("image/jpeg", "image/tiff"), ("image/png", "image/webp")
WRITABLE = "JPEG, PNG, WebP and TIFF"
# What cameras write into the description of every picture.
_OF_CAMERAS = re.compile(r"[A-Z ]*DIGITAL CAMERA|SONY DSC|Exif_JPEG_PICTURE|DCIM\\.*|dav|cof|ptr|edf|oznor|rhdr")


@cache  # to look for a package takes long, and it is asked for each picture
def available() -> bool:
    """Whether the extra is installed."""
    return find_spec("exiv2") is not None


def require() -> None:
    """Raise DeviceError unless the extra is installed."""
    _library()


def read(path: str) -> Held | None:
    """The caption inside a picture, a person's before ours; None where there is none, also in files that are damaged.

    Raises DataError where the XMP is damaged, and OSError.
    """
    with suppress(_library().Exiv2Error):
        return _held(image, path) if (image := _image(path)) else None
    return None


def noted(path: str, what: str) -> str:
    """What `xmp.noted` has of a picture. Raises DataError and OSError."""
    with suppress(_library().Exiv2Error):
        return xmp.noted(_packet(image), what) if (image := _image(path)) else ""
    return ""


def _image(path: str) -> Any:
    with Path(path).open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return None
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # of which little is read
    return _opened(content)


def check(path: str) -> None:
    """Raise OutputError if nothing can be written into a picture: its format, or write protection."""
    if Path(path).suffix.lower() in RAW:
        raise OutputError(f"{path}: captions are never put into raw files: write sidecar files (--format xmp)")
    with Path(path).open("rb") as file:
        start = file.read(12)
    signatures = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*")
    if start and not (start.startswith(signatures) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")):
        raise OutputError(f"{path}: captions can only be put into {WRITABLE}: write sidecar files (--format xmp)")
    if not os.access(path, os.W_OK):
        raise OutputError(f"{path}: is write-protected")


def write(path: str, entry: Entry, options: MetadataOptions) -> None:
    """Put a caption into a picture, in place of the one that is there.

    The file is replaced as a whole, by one with the same permissions. Raises OutputError, DataError and OSError, and
    then leaves it as it is.
    """
    file = Path(path)
    content = file.read_bytes()
    try:
        new = _with(content, path, entry, options.legacy)
    except (_library().Exiv2Error, ValueError, UnidentifiedImageError) as error:
        reason = error.args[-1] if error.args else error
        raise OutputError(f"{path}: the caption cannot be put into it ({one_line(reason)})") from error
    if new == content:
        return
    backup = Path(path + "_original")  # as exiftool calls it
    if options.backup and not backup.exists():
        with replacing(backup, "wb") as copy:
            copy.write(content)
            _like(file, copy, keep_time=True)
    with replacing(file, "wb") as changed:
        changed.write(new)
        _like(file, changed, options.keep_time)


def _like(file: Path, copy: Any, keep_time: bool) -> None:
    """Give a file that is being written the permissions and extended attributes of another, and perhaps its times."""
    copy.flush()
    shutil.copystat(file, copy.name)
    if not keep_time:
        os.utime(copy.name)


@cache
def _library() -> Any:
    try:
        import exiv2
    except ImportError as error:
        raise DeviceError(f"captions inside pictures need exiv2: {to_install('metadata')}") from error
    exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.mute)  # it warns about what is odd in other people's metadata
    return exiv2


def _opened(content: Any) -> Any:
    image = _library().ImageFactory.open(content)
    image.readMetadata()
    return image


def _packet(image: Any) -> bytes:
    """The XMP of a picture as it stands there; of HEIC and AVIF as exiv2 writes it."""
    text: str = image.xmpData().xmpPacket() or image.xmpPacket()
    return text.encode(errors="surrogateescape")


def _older(image: Any) -> dict[str, str]:
    """The captions in EXIF and IPTC by their keys, but for what cameras write there."""
    places = ((image.exifData(), _DESCRIPTION), (image.iptcData(), _CAPTION))
    found = {key: fields[key].toString().encode(errors="surrogateescape") for fields, key in places if key in fields}
    texts = {key: decoded(text)[0].strip("\0 \r\n\t") for key, text in found.items()}
    return {key: text for key, text in texts.items() if text and not _OF_CAMERAS.fullmatch(text)}


def _held(image: Any, path: str) -> Held | None:
    try:
        caption, older = held(_packet(image)), _older(image)
    except DataError as error:
        raise DataError(f"{path}: its metadata are damaged ({error})") from error
    if caption is None or caption.ours:
        # A program that knows nothing of XMP may have changed one of them.
        other = next((text for text in older.values() if caption is None or text != caption.text), None)
        return caption if other is None else Held(other, False)
    return caption


def _with(content: bytes, path: str, entry: Entry, legacy: bool) -> bytes:
    """The picture with the caption in it."""
    image = _opened(content)
    kind, before, older = image.mimeType(), _packet(image), _older(image)
    packet = merged(before or None, entry)
    seen = {each.text for each in (held(before), _held(image, path)) if each}
    kept = {key for key, text in older.items() if entry.by_person and text not in seen}  # they saw another caption
    if kind in _CHUNKED:
        if not {*older.values()} <= {entry.text}:
            raise OutputError(f"{path}: its EXIF holds a caption, which can only be replaced in JPEG and TIFF")
        size = image.pixelWidth(), image.pixelHeight()
        new = png_with(content, packet) if kind == "image/png" else webp_with(content, packet, size)
    elif kind in _OLDER_FIELDS:
        image.setXmpPacket(packet.decode())
        image.writeXmpFromPacket(True)
        changed = _set_older(image, path, entry.text, legacy, kept) if entry.text or entry.by_person else []
        image.writeMetadata()
        new = bytes(image.io().data())
        if kind == "image/jpeg":
            new = jpeg_with(content, new, {XMP, *changed})
        elif not strips(content) or strips(new) != strips(content):
            raise ValueError("its pixels would be lost")
    else:
        raise ValueError(f"it is {kind}")
    if _packet(_opened(new)) != packet:
        raise ValueError("it could not be read back")
    return new


def _set_older(image: Any, path: str, text: str, legacy: bool, kept: set[str]) -> list[bytes]:
    """Set the fields of EXIF and IPTC that exist, or with `legacy` both, but none of those that are `kept`.

    Returns the kinds of the changed ones.
    """
    exif, iptc, changed = image.exifData(), image.iptcData(), []
    if (legacy or _DESCRIPTION in exif) and _DESCRIPTION not in kept:
        exif[_DESCRIPTION] = text
        changed.append(EXIF)
    if (legacy or _CAPTION in iptc) and _CAPTION not in kept:
        if not text.isascii():
            if iptc.detectCharset() is None:  # other letters than those of ASCII would be garbled
                raise OutputError(f"{path}: its IPTC text is not UTF-8: convert it with another program first")
            iptc[_CHARACTER_SET] = _UTF8
        iptc[_CAPTION] = text
        changed.append(IPTC)
    return changed
