"""Pictures of every kind come out as they are meant to be seen; what is no picture, as one line that says so."""

from __future__ import annotations

import base64
import io
import os
import random
import re
import struct
import threading
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import draw_picture
from PIL import Image, features

from captioner.errors import ImageError
from captioner.network.preprocess import Preprocess
from captioner.pictures import load as images
from captioner.pictures.load import SIDE, SUFFIXES, load_image, thumbnail

Pixels = npt.NDArray[Any]

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".gif": ("GIF", {}),
    ".bmp": ("BMP", {}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".ppm": ("PPM", {}),
    ".jp2": ("JPEG2000", {}),
}
if features.check("avif"):
    FORMATS[".avif"] = ("AVIF", {"quality": 95, "subsampling": "4:4:4"})

EVERY_FORMAT = pytest.mark.parametrize("suffix", FORMATS)


def upright() -> Pixels:
    """Six blocks of different colours, 32 x 48: no two ways of turning it look the same."""
    colours = [[(200, 30, 30), (30, 160, 40), (30, 40, 180)], [(240, 220, 40), (20, 20, 20), (230, 230, 230)]]
    return np.kron(np.array(colours, np.uint8), np.ones((16, 16, 1), np.uint8))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tiff(content: bytes, bits: int, tags: dict[int, int], order: str) -> bytes:
    """A grey TIFF of 2 x 1 pixels, which Pillow cannot write."""
    usual = {256: 2, 257: 1, 258: bits, 259: 1, 262: 1, 277: 1, 278: 1, 279: len(content)}
    entries = sorted({**usual, **tags, 273: 8}.items())
    place = 8 + len(content)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", place + place % 2)
    table = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    return head + content + b"\0" * (place % 2) + struct.pack(f"{order}H", len(entries)) + table + b"\0" * 4


def png(kind: int, samples: list[int], clear: list[int]) -> bytes:
    """A PNG of 2 x 1 pixels of 16 bits, of which one colour is transparent; kind 0 is grey, 2 is RGB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head, row = struct.pack(">IIBBBBB", 2, 1, 16, kind, 0, 0, 0), struct.pack(f">{len(samples)}H", *samples)
    parts = (b"IHDR", head), (b"tRNS", struct.pack(f">{len(clear)}H", *clear)), (b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in (*parts, (b"IEND", b"")))


def example(suffix: str, **options: Any) -> bytes:
    """The picture `upright` as a file."""
    format, always = FORMATS[suffix]
    return encoded(Image.fromarray(upright()), format, **always, **options)


def loaded(source: images.ImageSource) -> Pixels:
    image = load_image(source)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def one_line(error: pytest.ExceptionInfo[ImageError]) -> str:
    """The message, seen to be fit for a person."""
    message = str(error.value)
    assert message.isprintable()
    assert not re.search(r"<_io|object at 0x|<PIL", message)
    return message


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


# 64 x 48 pixels, blue on the left and red on the right
HEIC = (
    r"0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<0004fZDn*}000000000XXk=`10000000000aA{+700000000000000000000B57=IV*mgE07O6l"
    r"0RRC200001p#T8@00000001Qb001LtX>Mi!000000RR916=`l}WdZ;I000310BCk&F#rGn01j|zbZr0t000010002}X>f9I0002pX>en20001X"
    r"Xm(>m0RwOV0058x000009`FGC{rLC*01pFT0096PKmiN^|NjGU00093kN^M!000939=ZZRVE_RDDnbDP18@KU0|1Z!00RI30{|YNAb|yz>g1-m"
    r"xCm%4AOHXZ10VnZ0{|gn00967L;=Bbz=;3=025<xY;ta6Y<K_x01W^JfB*mh6lrsCWdHyG00000KmY&$KmY&$C}V74Z~y=RKmY&$0RR91FaQ7m"
    r"0RR91000000{{R2@Bjb+0ssI25O8UDX#fBK00RgJ2mk;87-?{AVE_OC000000RRC7fdT^sga7~lEp23BbN~PVAt(W_8G!FerN961uOT0HQNM<="
    r"7lrciNB$&t=hoyyZEp"
)


class TestWhatIsRead:
    @EVERY_FORMAT
    @pytest.mark.parametrize("as_bytes", [False, True], ids=["file", "bytes"])
    def test_every_format_gives_the_same_picture(self, suffix: str, as_bytes: bool, tmp_path: Path) -> None:
        file = tmp_path / f"picture{suffix.upper()}"
        file.write_bytes(example(suffix))
        np.testing.assert_allclose(loaded(file.read_bytes() if as_bytes else file), upright(), atol=6)

    def test_every_suffix_that_folders_are_searched_for_belongs_to_a_format(self) -> None:
        assert SUFFIXES - {".heic", ".heif", ".hif"} <= Image.registered_extensions().keys()
        assert FORMATS.keys() <= SUFFIXES

    @pytest.mark.skipif(not find_spec("pi_heif"), reason="needs pi-heif")
    @pytest.mark.parametrize("name", ["a.heic", "a.hif", "a.jpg"])
    def test_heic(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(base64.b85decode(HEIC))
        picture = loaded(tmp_path / name)
        assert picture.shape == (48, 64, 3)
        np.testing.assert_allclose(picture[24, [10, 50]], [(0, 0, 255), (255, 0, 0)], atol=30)

    def test_a_path_may_be_a_string(self, pictures: list[Path]) -> None:
        np.testing.assert_array_equal(loaded(str(pictures[1])), loaded(pictures[1]))

    @pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_of_several_frames_the_first_counts(self, format: str) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
        assert load_image(encoded(frames[0], format, save_all=True, append_images=frames[1:])).getpixel((4, 4)) == (
            pytest.approx((255, 0, 0), abs=3)
        )

    # How a camera stores the upright picture, from the table of the EXIF standard: which side of the scene the
    # first row and the first column are.
    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            (1, lambda a: a),  # top, left
            (2, lambda a: a[:, ::-1]),  # top, right
            (3, lambda a: a[::-1, ::-1]),  # bottom, right
            (4, lambda a: a[::-1]),  # bottom, left
            (5, lambda a: a.transpose(1, 0, 2)),  # left, top
            (6, lambda a: a.transpose(1, 0, 2)[::-1]),  # right, top
            (7, lambda a: a.transpose(1, 0, 2)[::-1, ::-1]),  # right, bottom
            (8, lambda a: a.transpose(1, 0, 2)[:, ::-1]),  # left, bottom
        ],
    )
    @pytest.mark.parametrize("suffix", [s for s in FORMATS if s in (".jpg", ".png", ".webp", ".tiff", ".avif")])
    def test_pictures_are_turned_upright(self, suffix: str, value: int, stored: Callable[[Pixels], Pixels]) -> None:
        format, options = FORMATS[suffix]
        image = Image.fromarray(np.ascontiguousarray(stored(upright())))
        data = encoded(image, format, exif=orientation(value), **options)
        np.testing.assert_allclose(loaded(data), upright(), atol=6)

    def test_an_image_of_pillow_is_turned_upright(self) -> None:
        image = Image.open(io.BytesIO(example(".png", exif=orientation(3))))
        np.testing.assert_array_equal(loaded(image), upright()[::-1, ::-1])

    @pytest.mark.parametrize("suffix", [".png", ".webp"])
    def test_damaged_metadata_does_not_spoil_a_picture(self, suffix: str) -> None:
        np.testing.assert_array_equal(loaded(example(suffix, exif=b"Exif\0\0no TIFF header")), upright())

    def test_the_given_image_is_left_as_it_is(self) -> None:
        given = Image.fromarray(upright())
        load_image(given).paste("red", (0, 0, 9, 9))
        np.testing.assert_array_equal(np.asarray(given), upright())


class TestColours:
    @pytest.mark.parametrize(
        ("mode", "pixel"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0)), ("RGBA", (255, 255, 255, 255)), ("LA", (255, 255))]
    )
    def test_what_is_transparent_is_white(self, mode: str, pixel: tuple[int, ...]) -> None:
        assert load_image(encoded(Image.new(mode, (4, 4), pixel), "PNG")).getpixel((1, 1)) == (255, 255, 255)

    def test_half_transparent_black_is_grey(self) -> None:
        data = encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG")
        assert load_image(data).getpixel((1, 1)) == pytest.approx((127, 127, 127), abs=1)

    @pytest.mark.parametrize("mode", ["P", "L", "RGB"])
    @pytest.mark.parametrize("format", ["PNG", "GIF"])
    def test_a_transparent_colour_is_white(self, mode: str, format: str) -> None:
        if format == "GIF" and mode == "RGB":
            pytest.skip("GIF has palettes only")
        image = Image.new("L", (4, 4), 0)
        image.paste(200, (2, 0, 4, 4))
        transparent = (0, 0, 0) if mode == "RGB" else 0
        picture = load_image(encoded(image.convert(mode), format, transparency=transparent))
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert picture.getpixel((3, 0)) == (200, 200, 200)

    @pytest.mark.parametrize("format", ["JPEG", "TIFF"])
    def test_cmyk_has_the_right_colours(self, format: str) -> None:
        """In a CMYK JPEG the values are inverted, as Adobe began it; in a TIFF they are not."""
        image = Image.new("CMYK", (32, 16), (0, 255, 255, 0))
        image.paste((255, 255, 0, 0), (16, 0, 32, 16))
        data = encoded(image, format)
        assert (b"Adobe" in data) == (format == "JPEG")
        picture = load_image(data)
        assert picture.getpixel((4, 8)) == pytest.approx((255, 0, 0), abs=4)
        assert picture.getpixel((28, 8)) == pytest.approx((0, 0, 255), abs=4)

    @pytest.mark.parametrize("format", ["PNG", "TIFF"])
    def test_16_bit_grey_is_scaled(self, format: str) -> None:
        image = Image.fromarray(np.array([[0, 257, 32_896, 65_535]], np.uint16))
        assert image.mode == "I;16"
        assert loaded(encoded(image, format))[0, :, 0].tolist() == [0, 1, 128, 255]

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize(
        ("bits", "data", "tags", "expected"),
        [
            (12, "fff000", {}, [255, 0]),
            (12, "fff000", {262: 0}, [0, 255]),  # white is zero
            (16, "ffff0000", {262: 0}, [0, 255]),
            (16, "0fff0000", {281: 4095}, [255, 0]),  # 12 bits in numbers of 16 bits
            (16, "7fff0000", {281: 3000}, [127, 0]),  # the highest level that the picture has
            (16, "7ffffff0", {339: 2}, [255, 0]),  # with a sign
        ],
    )
    def test_deep_grey_is_scaled_by_its_own_bits(
        self, order: str, bits: int, data: str, tags: dict[int, int], expected: list[int]
    ) -> None:
        content = bytes.fromhex(data)
        if order == "<" and bits == 16:
            content = struct.pack("<2H", *struct.unpack(">2H", content))
        assert loaded(tiff(content, bits, tags, order))[0, :, 0].tolist() == expected

    @pytest.mark.parametrize(
        ("kind", "pixels", "clear", "expected"),
        [
            (0, [1000, 40_000], [1000], [[255] * 3, [155] * 3]),
            (2, [1000, 2000, 3000, 40_000, 50_000, 60_000], [1000, 2000, 3000], [[255] * 3, [156, 195, 234]]),
        ],
    )
    def test_a_16_bit_colour_that_is_clear_becomes_white(
        self, kind: int, pixels: list[int], clear: list[int], expected: list[list[int]]
    ) -> None:
        data = png(kind, pixels, clear)
        assert loaded(data)[0].tolist() == expected
        with Image.open(io.BytesIO(data)) as image:
            load_image(image)
            assert image.info["transparency"] == (clear[0] if kind == 0 else tuple(clear)), "the caller's stays"

    @pytest.mark.parametrize("highest", [1023, 4095, 65_535])
    def test_a_pgm_is_scaled_by_its_highest_level(self, highest: int) -> None:
        data = f"P5 2 1 {highest}\n".encode() + struct.pack(">2H", highest, highest // 2)
        assert loaded(data)[0, :, 0].tolist() == [255, 127]

    def test_32_bit_grey_is_16_bit_grey_and_clipped(self) -> None:
        image = Image.fromarray(np.array([[-5, 32_896, 65_535, 1_000_000]], np.int32))
        assert loaded(image)[0, :, 0].tolist() == [0, 128, 255, 255]

    @pytest.mark.parametrize(
        ("values", "expected"),
        [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.4, 300.0], [0, 100, 255]), ([0.0, np.nan, 1.0], [0, 0, 255])],
    )
    def test_float_tiff_of_either_range(self, values: list[float], expected: list[int]) -> None:
        data = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
        assert loaded(data)[0, :, 1].tolist() == expected

    def test_black_and_white_of_one_bit(self) -> None:
        image = Image.new("1", (4, 1), 0)
        image.putpixel((2, 0), 1)
        assert loaded(encoded(image, "PNG"))[0, :, 2].tolist() == [0, 0, 255, 0]

    @pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
    def test_thin_pictures(self, size: tuple[int, int]) -> None:
        picture = load_image(encoded(Image.new("RGB", size, "teal"), "PNG"))
        assert picture.size == size
        assert Preprocess(size=32).pixels(picture)[5, 7].tolist() == [0, 128, 128]


class TestArrays:
    @pytest.mark.parametrize(
        "array",
        [
            upright(),
            upright()[..., 0],
            upright()[..., :1],
            np.dstack([upright(), np.full((32, 48, 1), 255, np.uint8)]),
            upright() / 255.0,
            (upright() / 255.0).astype(np.float32),
            upright()[::-1, ::-1],  # not contiguous in memory
        ],
        ids=["RGB", "grey", "grey with an axis", "RGBA", "float64", "float32", "a view"],
    )
    def test_an_array_gives_its_values(self, array: Pixels) -> None:
        values = array if array.dtype == np.uint8 else (array * 255).round()
        expected = values[..., :3] if values.ndim == 3 else values[..., None]
        np.testing.assert_array_equal(loaded(array), np.broadcast_to(expected, (32, 48, 3)))

    def test_a_transparent_array_is_white(self) -> None:
        assert loaded(np.zeros((2, 2, 4), np.uint8)).min() == 255

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
            (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\)"),
            (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
            (np.zeros(4, np.uint8), "shape"),
            (np.zeros((0, 4, 3), np.uint8), "shape"),
            (np.zeros((4, 4), np.int64), "array of int64"),
            (np.zeros((4, 4), bool), "array of bool"),
            (np.zeros((4, 4), object), "array of object"),
            (np.full((4, 4), 255.0), "0 to 1"),
            (np.full((4, 4), -0.1), "0 to 1"),
            (np.full((4, 4), np.nan), "0 to 1"),
        ],
    )
    def test_other_arrays_are_refused(self, array: Pixels, message: str) -> None:
        with pytest.raises(ImageError, match=message) as caught:
            load_image(array)
        one_line(caught)


class TestTensors:
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_a_tensor_holds_its_channels_first(self, dtype: torch.dtype, channels: int) -> None:
        values = np.dstack([upright(), np.full((32, 48, 1), 255, np.uint8)])[..., :channels]
        tensor = torch.from_numpy(values).permute(2, 0, 1)
        tensor = tensor if dtype == torch.uint8 else (tensor / 255).to(dtype)
        tolerance = 1 if dtype == torch.bfloat16 else 0
        expected = np.broadcast_to(values[..., :3], (32, 48, 3)).astype(int)
        assert abs(loaded(tensor) - expected).max() <= tolerance

    def test_a_grey_tensor_and_one_that_learns(self) -> None:
        tensor = (torch.from_numpy(upright()[..., 0].copy()) / 255).requires_grad_()
        np.testing.assert_array_equal(loaded(tensor), np.repeat(upright()[..., :1], 3, axis=2))

    def test_a_tensor_as_narrow_as_a_number_of_channels_is_no_array(self) -> None:
        assert load_image(torch.zeros(3, 8, 4)).size == (4, 8)

    @pytest.mark.parametrize("shape", [(8, 8, 3), (2, 8, 8), (1, 3, 8, 8), (8,)])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ImageError, match=r"a tensor of shape .* is no picture: give"):
            load_image(torch.zeros(shape))


class TestOpenFiles:
    def test_an_open_file_is_read_from_where_it_stands_and_stays_open(self, tmp_path: Path) -> None:
        (tmp_path / "two").write_bytes(b"before" + encoded(Image.fromarray(upright()), "PNG"))
        with (tmp_path / "two").open("rb") as file:
            file.seek(6)
            np.testing.assert_array_equal(loaded(file), upright())
            assert not file.closed

    @pytest.mark.parametrize(
        ("file", "message"),
        [
            (io.StringIO("text"), r'open it with mode "rb"'),
            (io.BytesIO(b""), "the file is empty"),
            (io.BytesIO(b"no picture"), "not a picture"),
        ],
    )
    def test_what_is_no_picture_is_refused(self, file: Any, message: str) -> None:
        with pytest.raises(ImageError, match=message):
            load_image(file)

    def test_its_name_stands_in_messages(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"no picture")
        with (tmp_path / "a.jpg").open("rb") as file, pytest.raises(ImageError, match=r"a\.jpg: not a picture"):
            load_image(file)
        with pytest.raises(ImageError, match=r"a\.jpg: cannot be read \(read of closed file\)"):
            load_image(file)

    def test_no_more_is_read_than_a_picture_may_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
        file = io.BytesIO(bytes(1000))
        with pytest.raises(ImageError, match="more than the limit"):
            load_image(file)
        assert file.tell() == 11


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of 67 bytes whose header promises any number of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


class TestErrors:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "the file is empty"),
            (b"Dear reader, this is no picture. " * 20, "not a picture, or a format that Pillow cannot read"),
            (b"\0" * 1000, "not a picture"),
            (example(".jpg")[:-20], "damaged picture: "),
            (png_that_claims(60_000, 60_000), "more than 200 million pixels"),
            (png_that_claims(0, 7), "damaged picture|not a picture"),
        ],
        ids=["empty", "text", "zeros", "truncated", "huge", "no pixels"],
    )
    def test_the_message_names_the_file_and_the_reason(self, content: bytes, message: str, tmp_path: Path) -> None:
        file = tmp_path / "holiday.jpg"
        file.write_bytes(content)
        with pytest.raises(ImageError, match=message) as caught:
            load_image(file)
        assert one_line(caught).startswith(f"{file}: ")
        with pytest.raises(ImageError, match=message) as caught:
            load_image(content)
        assert one_line(caught).startswith("the picture: ")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"nothing\.jpg: no such file"):
            load_image(tmp_path / "nothing.jpg")

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("file/below.jpg", r"cannot be opened \(Not a directory\)"),
            ("x" * 5000, r"cannot be opened \(File name too long\)"),
            ("a\0b.jpg", r"a\\x00b\.jpg: cannot be opened"),
        ],
    )
    def test_an_impossible_path(self, path: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ImageError, match=message) as caught:
            load_image(tmp_path / path)
        one_line(caught)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="is a folder"):
            load_image(tmp_path)

    @pytest.mark.timeout(20)
    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_a_named_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.jpg")
        with pytest.raises(ImageError, match="not a regular file"):
            load_image(tmp_path / "pipe.jpg")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_a_file_without_permission(self, pictures: list[Path]) -> None:
        pictures[0].chmod(0)
        with pytest.raises(ImageError, match=r"cannot be opened \(Permission denied\)"):
            load_image(pictures[0])

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("a\nb.jpg", r"a\nb.jpg"),
            ("a\x1b[31mb.jpg", r"a\x1b[31mb.jpg"),
            ("a\u2028b.jpg", r"a\u2028b.jpg"),
            ("😀 ünï.jpg", "😀 ünï.jpg"),
        ],
    )
    def test_names_that_break_lines_are_shown_on_one(self, name: str, shown: str, tmp_path: Path) -> None:
        file = tmp_path / name
        with pytest.raises(ImageError) as caught:
            load_image(file)
        assert one_line(caught) == f"{tmp_path}/{shown}: no such file"
        file.write_bytes(example(".png"))
        assert load_image(file).size == (48, 32)

    def test_a_name_that_is_not_text_comes_out_as_it_went_in(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="x\udcff\\.jpg: no such file"):
            load_image(tmp_path / "x\udcff.jpg")

    @pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"heix\0\0\0\0"])
    def test_heic_is_known_by_its_bytes(self, brands: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "_prepare_pillow", lambda: ("JPEG",))  # as without pi-heif
        with pytest.raises(ImageError, match=r'^a\.jpg: is HEIC, which needs: pip install "captioner\[heic\]" \(in a'):
            load_image(b"\0\0\0\x18ftyp" + brands + b"\0" * 100, name="a.jpg")
        with pytest.raises(ImageError, match="not a picture"):
            load_image(b"\0\0\0\x18ftypisom\0\0\0\0mp41" + b"\0" * 100)

    def test_a_name_in_another_unicode_form(self, tmp_path: Path) -> None:
        forms = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
        for there, asked in (forms, reversed(forms)):
            (tmp_path / asked).unlink(missing_ok=True)
            Image.new("RGB", (5, 4)).save(tmp_path / there)
            assert load_image(tmp_path / asked).size == (5, 4)

    def test_heic_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = [tmp_path / "IMG_0001.HEIC", tmp_path / "IMG_0002.jpg", tmp_path / "IMG_0003.avif"]
        brands = [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"avif\0\0\0\0avifmif1"]
        for file, brand in zip(files, brands, strict=True):
            file.write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0" * 100)
        formats = [name for name in images._prepare_pillow() if name != "HEIF"]
        monkeypatch.setattr(images, "_prepare_pillow", lambda: formats)
        for source in (files[0], files[1], files[1].read_bytes()):
            with pytest.raises(ImageError, match=r"is HEIC, which needs: pip install .* \(in a clone: pip"):
                load_image(source)
        with pytest.raises(ImageError) as caught:
            load_image(files[2])
        assert "HEIC" not in one_line(caught)
        formats.append("HEIF")  # with the extra, Pillow says what is wrong
        with pytest.raises(ImageError) as caught:
            load_image(files[0])
        assert "pip" not in one_line(caught)

    def test_the_limit_of_pixels(self) -> None:
        assert load_image(example(".png"), max_pixels=48 * 32).size == (48, 32)
        larger: list[images.ImageSource] = [np.zeros((33, 48), np.uint8), Image.new("L", (48, 33))]
        for source in (*larger, encoded(Image.new("L", (48, 33)), "PNG")):
            with pytest.raises(ImageError, match=r"48 x 33 is more than 0\.001536 million pixels"):
                load_image(source, max_pixels=48 * 32)

    def test_the_limit_of_pixels_is_ours_not_that_of_pillow(self) -> None:
        load_image(example(".png"))
        assert Image.MAX_IMAGE_PIXELS is not None
        assert 2 * Image.MAX_IMAGE_PIXELS >= images.MAX_PIXELS

    def test_the_limit_of_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
        with pytest.raises(ImageError, match="MB is more than the limit"):
            load_image(example(".png"))

    def test_an_image_of_pillow_without_pixels(self) -> None:
        with pytest.raises(ImageError, match="has no pixels"):
            load_image(Image.new("RGB", (0, 5)))

    def test_an_image_of_pillow_whose_file_is_damaged(self) -> None:
        with pytest.raises(ImageError, match="the picture: damaged picture") as caught:
            load_image(Image.open(io.BytesIO(example(".jpg")[:-20])))
        one_line(caught)

    @pytest.mark.parametrize("source", [None, 3, ["a.jpg"]])
    def test_what_is_no_source_at_all_is_a_mistake_of_the_program(self, source: Any) -> None:
        with pytest.raises(TypeError):
            load_image(source)


def error_or_size(data: bytes) -> str | tuple[int, int]:
    try:
        return load_image(data).size
    except ImageError as error:
        message = str(error)
    assert message.startswith("the picture: ")
    assert message.isprintable()
    return message


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
class TestDamage:
    @EVERY_FORMAT
    def test_a_truncated_file_is_a_picture_or_an_error(self, suffix: str) -> None:
        data = example(suffix)
        results = [error_or_size(data[: len(data) * tenth // 10]) for tenth in range(11)]
        assert results[10] == (48, 32)
        assert "the file is empty" in str(results[0])

    @EVERY_FORMAT
    def test_a_changed_file_is_a_picture_or_an_error(self, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "MAX_PIXELS", 1_000_000)  # changed sizes would take time
        rng = random.Random(suffix)
        format, options = FORMATS[suffix]
        metadata = {} if suffix in (".gif", ".bmp", ".ppm", ".jp2") else {"exif": orientation(6)}
        data = encoded(Image.fromarray(upright()), format, **options, **metadata)
        for _ in range(40):
            changed = bytearray(data)
            for _ in range(rng.choice([1, 2, 8])):
                at = rng.randrange(len(changed) if rng.random() < 0.5 else min(200, len(changed)))
                cut = rng.choice([0, 0, 1, 9])  # overwrite, or cut something out and put something in
                changed[at : at + (cut or 1)] = rng.randbytes(1 if not cut else rng.randrange(9))
            error_or_size(bytes(changed))


class TestWarnings:
    """Pillow warns of odd pictures: nobody needs to see that, but the warnings of others must stay."""

    def test_those_of_pillow_are_not_shown(self) -> None:
        images._prepare_pillow.cache_clear()  # pytest takes all filters back after each test
        odd = example(".jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"garbage" * 5)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Image.open(io.BytesIO(odd)).getexif()
            assert caught
            caught.clear()
            load_image(odd)
        assert not caught

    def test_those_of_others_stay_while_threads_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`warnings.catch_warnings` would change the filters of all threads, and could leave them changed."""
        seen = []
        real = Image.open

        def spying(*args: Any) -> Image.Image:
            seen.extend(warnings.filters)
            return real(*args)

        monkeypatch.setattr(Image, "open", spying)
        thread = threading.Thread(target=load_image, args=[example(".png")])
        thread.start()
        thread.join()
        assert seen
        assert not any(action == "ignore" and kind is Warning and not module for action, _, kind, module, _ in seen)


class TestLargeFiles:
    """A JPEG file is read no larger than needed."""

    @staticmethod
    def photo(size: tuple[int, int]) -> Image.Image:
        """Smooth shapes with some grain."""
        grain = np.random.default_rng(0).normal(0, 6, (size[1], size[0], 1))
        pixels = np.asarray(draw_picture(3, size), np.float64) + grain
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    @pytest.mark.parametrize(
        ("size", "found"),
        [
            ((1000, 800), (1000, 800)),
            ((1000, 896), (500, 448)),
            ((1200, 895), (1200, 895)),
            ((4000, 1800), (1000, 450)),
            ((4000, 3600), (500, 450)),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("as_bytes", [False, True], ids=["file", "bytes"])
    def test_no_side_falls_below_the_smallest(
        self, size: tuple[int, int], found: tuple[int, int], as_bytes: bool, tmp_path: Path
    ) -> None:
        file = tmp_path / "photo.jpg"
        draw_picture(1, size).save(file)
        source = file.read_bytes() if as_bytes else file
        assert load_image(source, smallest=448).size == found
        assert load_image(source).size == size

    def test_the_networks_input_stays_near(self) -> None:
        data = encoded(self.photo((2400, 1800)), "JPEG", quality=90)
        whole, reduced = (
            Preprocess().pixels(load_image(data, smallest=smallest)).astype(float) for smallest in (None, 448)
        )
        assert 0 < abs(whole - reduced).mean() < 1.0
        assert np.quantile(abs(whole - reduced), 0.99) < 6.0

    @pytest.mark.parametrize("format", ["PNG", "WEBP"])
    def test_other_formats_are_read_whole(self, format: str) -> None:
        assert load_image(encoded(draw_picture(1, (900, 900)), format), smallest=448).size == (900, 900)

    def test_a_turned_photo_is_turned(self) -> None:
        data = encoded(draw_picture(1, (2000, 1000)), "JPEG", exif=orientation(6))
        assert load_image(data, smallest=448).size == (500, 1000)

    def test_the_limit_is_that_of_the_whole_picture(self) -> None:
        with pytest.raises(ImageError, match="1000 x 1000 is more than"):
            load_image(encoded(draw_picture(1, (1000, 1000)), "JPEG"), max_pixels=999_999, smallest=100)


@pytest.mark.parametrize(("size", "expected"), [((1000, 500), (SIDE, SIDE // 2)), ((30, 60), (30, 60))])
def test_a_thumbnail_is_a_small_jpeg(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", size, "navy").save(path)
    uri = thumbnail(path)
    assert uri is not None
    kind, data = uri.split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == expected


def test_a_file_that_is_no_picture_has_no_thumbnail(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    assert thumbnail(tmp_path / "a.jpg") is None
    assert thumbnail(tmp_path / "not there.jpg") is None
