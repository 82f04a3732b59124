"""A raw file as cameras write it: a DNG that LibRaw opens."""

from __future__ import annotations

import io
import struct
from typing import TypeAlias

import numpy as np
from PIL import Image

Field: TypeAlias = "tuple[int, str, list[int] | bytes]"  # tag, type as `struct` has it, values
_TYPES = {"B": 1, "s": 2, "H": 3, "I": 4, "II": 5, "ii": 10}
_CAMERA: list[Field] = [
    (271, "s", b"Test\0"),
    (272, "s", b"Camera\0"),
    (50706, "B", [1, 4, 0, 0]),  # the version of DNG
    (50721, "ii", [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]),  # XYZ is the camera's colours
]


def dng(picture: Image.Image, preview: Image.Image | None = None, orientation: int = 1) -> bytes:
    """A DNG whose mosaic shows the picture as it lies on the sensor, with a JPEG preview."""
    pixels, mosaic = np.asarray(picture), np.zeros((picture.height, picture.width), "<u2")
    for y, x, colour in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[y::2, x::2] = pixels[y::2, x::2, colour].astype("<u2") * 16
    turned: list[Field] = [(274, "H", [orientation])]
    colours: list[Field] = [(33421, "H", [2, 2]), (33422, "B", [0, 1, 1, 2]), (50717, "I", [4095])]
    jpeg = io.BytesIO()
    if preview:
        preview.save(jpeg, "JPEG")
    small, whole = jpeg.getvalue() + b"\0" * (jpeg.tell() % 2), mosaic.tobytes()

    def directories(next_at: int, small_at: int, whole_at: int) -> tuple[bytes, bytes]:
        raw = [*_image(picture, 0, 1, 32803, whole_at, len(whole)), (258, "H", [16]), (277, "H", [1]), *colours]
        if preview is None:
            return b"", _directory([*raw, *_CAMERA, *turned], 8)
        shown = [*_image(preview, 1, 7, 6, small_at, len(small)), (258, "H", [8, 8, 8]), (277, "H", [3])]
        return _directory([*shown, (330, "I", [next_at]), *_CAMERA, *turned], 8), _directory(raw, next_at)

    first, second = directories(8, 0, 0)
    next_at = 8 + len(first)
    small_at = next_at + len(second)
    return b"".join([b"II*\0\x08\0\0\0", *directories(next_at, small_at, small_at + len(small)), small, whole])


def _image(picture: Image.Image, kind: int, compression: int, colours: int, at: int, length: int) -> list[Field]:
    size = [(256, [picture.width]), (257, [picture.height]), (278, [picture.height]), (273, [at]), (279, [length])]
    rest = [(254, [kind]), (259, [compression]), (262, [colours])]
    return [(tag, "I", values) for tag, values in size + rest]


def _directory(fields: list[Field], start: int) -> bytes:
    """The directory of a TIFF that begins at a byte of the file, with the values that have no place in it behind it."""
    entries, behind, end = b"", b"", start + 2 + 12 * len(fields) + 4
    for tag, kind, values in sorted(fields):
        raw = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{kind[0]}", *values)
        count = len(values) // (len(kind) if kind != "s" else 1)
        cell = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", end + len(behind))
        behind += raw + b"\0" * (len(raw) % 2) if len(raw) > 4 else b""
        entries += struct.pack("<HHI", tag, _TYPES[kind], count) + cell
    return struct.pack("<H", len(fields)) + entries + bytes(4) + behind
