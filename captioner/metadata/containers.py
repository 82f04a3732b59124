"""Putting metadata into JPEG, PNG and WebP without a change of any other byte, and a look at the pixels of TIFF.

The library exiv2 writes more than it is asked to: comments of JPEG, and EXIF of PNG and WebP in another byte order,
which garbles some of its fields.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Iterator

from PIL import Image

EXIF, XMP, IPTC = b"\xff\xe1Exif\0", b"\xff\xe1http://ns.adobe.com/xap/1.0/\0", b"\xff\xedPhotoshop 3.0\0"
_PNG = b"\x89PNG\r\n\x1a\n"
_KEYWORD = b"XML:com.adobe.xmp\0"
_OLD = (_KEYWORD, b"Raw profile type xmp\0")  # the second is of ImageMagick
_TEXTS = (b"iTXt", b"zTXt", b"tEXt")
_HAS_XMP, _HAS_ALPHA = 0x04, 0x10  # flags of WebP


def jpeg_with(content: bytes, written: bytes, kinds: Collection[bytes]) -> bytes:
    """A JPEG with the segments of some kinds as exiv2 has written them, and all others as they were.

    A new one stands before the first that tells where other pictures in the file are. Raises ValueError.
    """
    segments, rest = _segments(content)
    new = {kind: b"".join(segment for name, segment in _segments(written)[0] if name == kind) for kind in kinds}
    pieces, names = [b"\xff\xd8"], {name for name, _ in segments}
    missing = b"".join(new[kind] for kind in (EXIF, XMP, IPTC) if kind in new and kind not in names)
    for name, segment in segments:
        if missing and name not in (b"\xff\xe0", EXIF):
            pieces.append(missing)
            missing = b""
        pieces.append(new.get(name, segment))
        if name in new:  # where a kind has several segments, ours take the place of the first
            new[name] = b""
    return b"".join([*pieces, missing, rest])


def _segments(content: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The segments of a JPEG with their kinds, and the rest of it from the first scan on."""
    place, found = 2, []
    while (marker := content[place : place + 2]) != b"\xff\xda":
        if marker == b"\xff\xff":  # segments may have any number of these before them
            found.append((marker, b"\xff"))
            place += 1
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        segment = content[place : place + 2 + length]
        if marker[:1] != b"\xff" or length < 2 or len(segment) < 2 + length:
            raise ValueError("a segment that is cut off")
        named = marker + segment[4:40]
        found.append((next((kind for kind in (EXIF, XMP, IPTC) if named.startswith(kind)), marker), segment))
        place += len(segment)
    return found, content[place:]


def strips(content: bytes) -> list[bytes]:
    """The strips or tiles of all pages of a TIFF, as they are compressed. Raises OSError."""
    found = []
    with Image.open(io.BytesIO(content), formats=["TIFF"]) as image:
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            tags = image.tag_v2
            for starts, lengths in ((273, 279), (324, 325)):
                pairs = zip(tags.get(starts, ()), tags.get(lengths, ()), strict=True)
                found += [content[start : start + length] for start, length in pairs]
    return found


def png_with(content: bytes, packet: bytes) -> bytes:
    """A PNG with this XMP, which stands before the pixels, where most programs look. Raises ValueError."""
    pieces, text = [_PNG], _KEYWORD + b"\0\0\0\0" + packet  # neither compressed nor in a language
    new = struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", zlib.crc32(b"iTXt" + text))
    for kind, chunk in _chunks(content, len(_PNG), ">I4s", 4):
        if kind in _TEXTS and chunk[8:].startswith(_OLD):
            continue
        if kind == b"IDAT" and new:
            pieces.append(new)
            new = b""
        pieces.append(chunk)
    if new:
        raise ValueError("a PNG without pixels")
    return b"".join(pieces)


def webp_with(content: bytes, packet: bytes, size: tuple[int, int]) -> bytes:
    """A WebP of this width and height with this XMP, which stands at its end. Raises ValueError."""
    end = 8 + int.from_bytes(content[4:8], "little")
    chunks = dict[int, tuple[bytes, bytes]](enumerate(_chunks(content[:end], 12, "<4sI", 0)))
    kept = [(kind, chunk) for kind, chunk in chunks.values() if kind != b"XMP "]
    if not kept:
        raise ValueError("a WebP without pixels")
    kind, first = kept[0]
    if kind == b"VP8X":
        kept[0] = kind, first[:8] + bytes([first[8] | _HAS_XMP]) + first[9:]
    else:  # a file without metadata has no such chunk
        alpha = _HAS_ALPHA if kind == b"VP8L" and first[12] & 0x10 else 0
        sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
        kept.insert(0, (b"VP8X", b"VP8X" + struct.pack("<IB3x", 10, _HAS_XMP | alpha) + sides))
    xmp = b"XMP " + struct.pack("<I", len(packet)) + packet + b"\0" * (len(packet) % 2)
    body = b"WEBP" + b"".join(chunk for _, chunk in kept) + xmp
    return b"RIFF" + struct.pack("<I", len(body)) + body + content[end:]


def _chunks(content: bytes, place: int, head: str, checksum: int) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a file from `place` on, each with its kind. What follows the last one of a PNG belongs to it."""
    while place < len(content):
        if len(content) - place < 8:
            raise ValueError("a chunk that is cut off")
        fields = struct.unpack_from(head, content, place)
        kind, length = fields if isinstance(fields[0], bytes) else fields[::-1]
        end = place + 8 + length + checksum
        end += (length % 2) * (not checksum)  # WebP pads to even lengths
        if end > len(content):
            raise ValueError("a chunk that is cut off")
        if kind == b"IEND":
            end = len(content)
        yield kind, content[place:end]
        place = end
