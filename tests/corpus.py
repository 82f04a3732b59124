"""Damaged and odd pictures of every format: what bad disks, bad programs and bad people leave in a folder."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from conftest import draw_picture
from PIL import Image, ImageCms, features

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jpg": ("JPEG", {"quality": 90}),
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {}),
    ".gif": ("GIF", {}),
    ".bmp": ("BMP", {}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".ppm": ("PPM", {}),
    ".jp2": ("JPEG2000", {}),
}
if features.check("avif"):
    FORMATS[".avif"] = ("AVIF", {"speed": 10})


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def example(suffix: str, size: tuple[int, int] = (96, 72)) -> bytes:
    """A whole picture as a file."""
    format, options = FORMATS[suffix]
    return encoded(draw_picture(3).resize(size), format, **options)


def damaged() -> Iterator[tuple[str, bytes]]:
    """Names and contents of regular files; some of them are pictures all the same."""
    rng = random.Random(0)
    for suffix in FORMATS:
        data = example(suffix)
        for tenth in range(10):
            yield f"cut {tenth}0 %{suffix}", data[: len(data) * tenth // 10]
        for flips in (1, 1, 1, 4, 4, 16, 64):
            changed = bytearray(data)
            for _ in range(flips):
                changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            yield f"{flips} flips {rng.randrange(10**9)}{suffix}", bytes(changed)
        yield f"zeros{suffix}", bytes(5000)
        yield f"head, then zeros{suffix}", data[:60] + bytes(len(data))
        other = rng.choice([wrong for wrong in FORMATS if wrong != suffix])
        yield f"in truth {suffix[1:]}{other}", data
        yield f"1 x 1{suffix}", example(suffix, (1, 1)) if suffix != ".avif" else example(suffix, (2, 2))
    yield from _odd()
    yield from _hostile()


def _odd() -> Iterator[tuple[str, bytes]]:
    """Whole pictures of rare kinds."""
    picture = draw_picture(5)
    for suffix in (".jpg", ".png", ".gif", ".bmp"):
        format, options = FORMATS[suffix]
        yield f"long{suffix}", encoded(Image.new("RGB", (1, 20_000), "teal"), format, **options)
    grey16 = Image.fromarray((np.arange(60 * 40, dtype=np.uint16) * 27).reshape(40, 60))
    for suffix, format in ((".png", "PNG"), (".tiff", "TIFF")):
        yield f"16 bit{suffix}", encoded(grey16, format)
        yield f"one bit{suffix}", encoded(picture.convert("1"), format)
    yield "float.tiff", encoded(Image.fromarray(np.linspace(0, 1, 2400, dtype=np.float32).reshape(40, 60)), "TIFF")
    yield "lab.tiff", encoded(Image.new("LAB", (40, 30)), "TIFF")
    for suffix, format in ((".jpg", "JPEG"), (".tiff", "TIFF")):
        yield f"cmyk{suffix}", encoded(picture.convert("CMYK"), format)
    for suffix, format in ((".png", "PNG"), (".gif", "GIF")):
        yield f"palette with transparency{suffix}", encoded(picture.quantize(8), format, transparency=3)
    frames = [draw_picture(number) for number in range(3)]
    for suffix, format in ((".gif", "GIF"), (".webp", "WEBP"), (".png", "PNG"), (".tiff", "TIFF")):
        yield f"animated{suffix}", encoded(frames[0], format, save_all=True, append_images=frames[1:])
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"turned {turn}.jpg", encoded(picture, "JPEG", exif=exif)
    for number, content in enumerate((b"", b"MM\0*\0\0\0\x08\xff\xff" + bytes(9), b"II*\0" + b"\xff" * 40, b"?" * 99)):
        for suffix, format in ((".jpg", "JPEG"), (".png", "PNG"), (".webp", "WEBP")):
            yield f"broken exif {number}{suffix}", encoded(picture, format, exif=b"Exif\0\0" + content)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for what, icc in (("icc", profile), ("broken icc", b"\xff" * 300)):
        for suffix, format in ((".jpg", "JPEG"), (".png", "PNG"), (".webp", "WEBP"), (".tiff", "TIFF")):
            yield f"{what}{suffix}", encoded(picture, format, icc_profile=icc)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(width, 1000) + 1) * min(height, 1000))
    every = (_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", rows), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(every)


def many_scans(side: int = 1500, times: int = 3000) -> bytes:
    """A JPEG whose last scan comes many times: a few bytes that take the decoder as long as a picture."""
    data = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    tables = data.rfind(b"\xff\xc4")
    scan = data[tables if data.rfind(b"\xff\xda", 0, last) < tables < last else last : -2]
    return data[:-2] + scan * times + b"\xff\xd9"


def _hostile() -> Iterator[tuple[str, bytes]]:
    """What is made to take memory or time, or is no picture at all."""
    bomb = zlib.compress(bytes(70_000_000))  # more than Pillow unpacks
    yield "bomb of pixels.png", _png(50_000, 50_000)
    yield "bomb of a row.png", _png(2**31 - 1, 1)
    yield "bomb of text.png", _png(8, 8, _chunk(b"zTXt", b"Comment\0\0" + bomb))
    yield "bomb of a profile.png", _png(8, 8, _chunk(b"iCCP", b"icc\0\0" + bomb))
    yield "bomb.gif", b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\0\x08\x01\0\0;"
    yield "bomb.bmp", b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "bomb.ppm", b"P6 99999 99999 255\n" + bytes(100)
    yield "bomb.webp", b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\xff\xff\xff\xff\xff\xff" + bytes(10)
    entries = [(256, 4, 1, 10**9), (257, 4, 1, 10**9), (273, 4, 2**31, 8)]
    yield "bomb.tiff", b"II*\0\x08\0\0\0\x03\0" + b"".join(struct.pack("<HHII", *e) for e in entries) + bytes(4)
    yield "bomb of scans.jpg", many_scans()
    yield "a program.jpg", encoded(draw_picture(1), "EPS")
    yield "document.jpg", b"%PDF-1.7\n" + bytes(300)
    yield "drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "page.jpg", b"<!DOCTYPE html><title>404</title>"
    yield "archive.jpg", b"PK\x03\x04" + bytes(300)
    yield "pickle.png", pickle.dumps(["a dog"])
    yield "noise.jpg", random.Random(1).randbytes(4000)


def strange_names() -> list[str]:
    """Names under which whole pictures lie."""
    return [
        "two\nlines.jpg",
        "a\ttab.jpg",
        "red \x1b[31m.jpg",
        "emoji 🐶.jpg",
        os.fsdecode(b"no text \xff\xfe.jpg"),
        "<img src=x onerror=alert(1)>.jpg",
        '"&quot;".jpg',
        "=HYPERLINK(1).jpg",
        "semi;=1+1.jpg",
        "-r.jpg",
        "[ab]*.jpg",
        "x" * 250 + ".jpg",
    ]


def build(folder: Path) -> list[Path]:
    """Put everything into a folder, with 7 whole pictures among them; returns those of `damaged`.

    There are, too: a named pipe, a folder, a loop of links, a link that leads nowhere, a file without permission.
    """
    folder.mkdir()
    paths = []
    for name, content in damaged():
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    for name in strange_names():
        (folder / name).write_bytes(example(".jpg"))
    for number in range(7):
        draw_picture(number).save(folder / f"{'acegikm'[number]} good.png")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "loop 1.jpg").symlink_to(folder / "loop 2.jpg")
    (folder / "loop 2.jpg").symlink_to(folder / "loop 1.jpg")
    (folder / "nowhere.jpg").symlink_to(folder / "not there.jpg")
    (folder / "secret.jpg").write_bytes(example(".jpg"))
    (folder / "secret.jpg").chmod(0)
    return paths
