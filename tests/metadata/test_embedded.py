"""Captions inside pictures: what other programs read, and that pixels and all other metadata stay as they are."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from conftest import draw_picture
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from captioner.errors import DataError, OutputError
from captioner.metadata import containers, embedded
from captioner.metadata.containers import png_with, webp_with
from captioner.metadata.xmp import Entry, Held
from captioner.options import MetadataOptions
from metadata.test_xmp import description, sidecar

exiv2: Any = pytest.importorskip("exiv2")

ENTRY = Entry("A dog é 水", "en", 0.5, maker="captioner")
PLAIN, LEGACY = MetadataOptions(), MetadataOptions(legacy=True)
KINDS = {
    "plain.jpg": {},
    "progressive.jpg": {"progressive": True, "comment": b"of the camera"},
    "plain.png": {},
    "animated.png": {"save_all": True},
    "plain.webp": {},
    "lossless.webp": {"lossless": True},
    "animated.webp": {"save_all": True},
    "plain.tif": {},
    "pages.tif": {"save_all": True, "compression": "tiff_lzw"},
}


def make(path: Path, rich: bool = False, camera: str = "", **more: Any) -> bytes:
    """Draw a picture into a file; `rich` with EXIF in the byte order of Motorola, colours and texts, and XMP."""
    image = draw_picture(3).convert("RGBA" if path.suffix in (".png", ".webp") else "RGB")
    if rich:
        exif = Image.Exif()
        exif.endian = ">"
        exif[0x010F] = "Camera"
        if camera:
            exif[0x010E] = camera
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "hé".encode("utf-16-be")  # which depends on the byte order
        exif.get_ifd(0x8825)[2] = (48.0, 8.0, 15.0)
        texts = PngInfo()
        texts.add_text("parameters", "a dog, steps: 20", zip=True)
        texts.add_itxt("Title", "Löwe")
        colours = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        more |= {"exif": exif, "icc_profile": colours, "dpi": (300, 300)} | (
            {"pnginfo": texts} if path.suffix == ".png" else {"xmp": sidecar("", 'dc:source="scan"')}
        )
    if more.get("save_all"):
        more["append_images"] = [image.rotate(90)]
    image.save(path, **more)
    return path.read_bytes()


def frames(content: bytes) -> list[bytes]:
    """The pixels of all frames."""
    with Image.open(io.BytesIO(content)) as image:
        found = []
        for frame in range(getattr(image, "n_frames", 1)):
            image.seek(frame)
            found.append(image.tobytes())
        return found


def exiftool(path: Path) -> dict[str, Any]:
    """All that exiftool reads, but for what says how and when the file was stored."""
    run = ["exiftool", "-json", "-a", "-u", "-G1", "-struct", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(run, capture_output=True, check=True).stdout)[0]
    stored = ("System:", "SourceFile", "IFD0:StripOffsets", "IFD1:StripOffsets", "RIFF:WebP_Flags", "File:Current")
    return {name: value for name, value in found.items() if not name.startswith(stored)}


@pytest.mark.parametrize("rich", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_the_caption_is_read_back_and_all_else_is_the_same(name: str, rich: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    before = make(path, rich, **KINDS[name])
    has_tool = shutil.which("exiftool")
    said = exiftool(path) if has_tool else {}
    assert embedded.read(str(path)) is None
    embedded.write(str(path), ENTRY, PLAIN)
    after = path.read_bytes()
    assert frames(after) == frames(before)
    assert embedded.read(str(path)) == Held("A dog é 水", True, 0.5)
    with Image.open(path) as new, Image.open(io.BytesIO(before)) as old:
        assert "A dog é 水".encode() in new.info["xmp"]
        assert dict(new.getexif().get_ifd(0x8769)) == dict(old.getexif().get_ifd(0x8769))
        same = set(old.info) - {"xmp", "exif"}
        assert {key: new.info[key] for key in same} == {key: old.info[key] for key in same}
    if has_tool:
        now = exiftool(path)
        assert now["XMP-dc:Description"] == now["XMP-iptcCore:AltTextAccessibility"]
        assert now["XMP-dc:Description"] in ("A dog é 水", {"_": "A dog é 水", "en": "A dog é 水"})
        ours = ("XMP-dc:Description", "XMP-iptcCore:Alt", "XMP-captioner", "XMP-xmp:CreatorTool", "XMP-x:")
        if (name == "plain.webp" and not rich) or (name == "lossless.webp" and not rich):
            ours += ("RIFF:", "File:FileType")  # the format has to say there that there are metadata
        assert {key: value for key, value in now.items() if not key.startswith(ours)} == {
            key: value for key, value in said.items() if not key.startswith(ours)
        }
    embedded.write(str(path), ENTRY, PLAIN)
    assert path.read_bytes() == after


def parts(content: bytes) -> list[bytes]:
    """The parts of a JPEG, PNG or WebP but for XMP."""
    if content.startswith(b"\xff\xd8"):
        segments, rest = containers._segments(content)
        return [*(segment for kind, segment in segments if kind != containers.XMP), rest]
    form = (8, ">I4s", 4) if content.startswith(b"\x89PNG") else (12, "<4sI", 0)
    return [chunk for _, chunk in containers._chunks(content, *form) if b"x:xmpmeta" not in chunk]


def test_tags_alone_touch_no_older_field(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    before = make(path, camera="SONY DSC")
    embedded.write(str(path), Entry("", tags=("dog",), skipped="too dark"), LEGACY)
    assert parts(path.read_bytes()) == parts(before)
    assert embedded.read(str(path)) is None
    assert embedded.noted(str(path), "skipped") == "too dark"


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_no_byte_of_other_parts_changes(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    before = make(path, rich=True)
    if name == "a.jpg":  # two comments, one of them binary, and XMP that is continued
        extension = b"http://ns.adobe.com/xmp/extension/\0the rest of it"
        more = b"\xff\xfe\0\6a\0bc" * 2 + b"\xff\xff\xe1" + struct.pack(">H", len(extension) + 2) + extension
        path.write_bytes(before := before[:20] + more + before[20:])
    assert len(parts(before)) > 3
    embedded.write(str(path), ENTRY, PLAIN)
    after = path.read_bytes()
    assert parts(after) == parts(before)
    assert len(after) > len(before)
    if name == "a.jpg":
        embedded.write(str(path), ENTRY, LEGACY)
        changed = set(parts(before)) ^ set(parts(path.read_bytes()))
        kinds = sorted(segment[4:8] for segment in changed)
        assert kinds == [b"Exif", b"Exif", b"Phot"]


def test_what_follows_a_picture_stays(tmp_path: Path) -> None:
    """The film in a phone's moving photograph stands there."""
    for name in ("a.jpg", "a.png", "a.webp"):
        path = tmp_path / name
        path.write_bytes(make(path) + b"ftypmp42 a film")
        embedded.write(str(path), ENTRY, PLAIN)
        assert path.read_bytes().endswith(b"ftypmp42 a film")


def test_compressed_xmp_and_that_of_imagemagick_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    make(path)
    packet = sidecar(description("My dog"), 'dc:source="scan"')
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", zlib.crc32(b"iTXt" + text))
    content = path.read_bytes()
    path.write_bytes(content[:-12] + chunk + content[-12:])  # where exiftool puts it
    assert embedded.read(str(path)) == Held("My dog", False)
    embedded.write(str(path), ENTRY, PLAIN)
    assert embedded.read(str(path)) == Held("A dog é 水", True, 0.5)
    assert path.read_bytes().count(b"XML:com.adobe.xmp") == 1
    with Image.open(path) as image:
        assert b"scan" in image.info["xmp"]


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_the_older_fields_are_filled_where_they_are_or_when_asked_for(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    for camera, options, filled in (("", PLAIN, False), ("", LEGACY, True), ("SONY DSC", PLAIN, True)):
        make(path, True, camera)
        assert embedded.read(str(path)) is None  # what a camera writes into every picture is no caption
        embedded.write(str(path), ENTRY, options)
        image = exiv2.ImageFactory.open(str(path))
        image.readMetadata()
        exif, iptc = image.exifData(), image.iptcData()
        assert ("Exif.Image.ImageDescription" in exif) == filled
        assert ("Iptc.Application2.Caption" in iptc) == (options is LEGACY)
        if filled:
            assert exif["Exif.Image.ImageDescription"].toString() == "A dog é 水"
        if options is LEGACY:
            assert iptc["Iptc.Application2.Caption"].toString() == "A dog é 水"
            assert iptc.detectCharset() == "UTF-8"
        assert embedded.read(str(path)) == Held("A dog é 水", True, 0.5)


def set_iptc(path: Path, text: bytes) -> None:
    """Write a caption into a JPEG as programs without XMP do."""
    records = b"\x1c\x02\x78" + struct.pack(">H", len(text)) + text
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records + b"\0" * (len(records) % 2)
    body = b"Photoshop 3.0\0" + resource
    segment = b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
    content = path.read_bytes()
    if (old := content.find(b"\xff\xed")) > 0:
        content = content[:old] + content[old + 2 + int.from_bytes(content[old + 2 : old + 4], "big") :]
    path.write_bytes(content[:20] + segment + content[20:])  # after JFIF


def test_what_a_person_wrote_in_the_older_fields_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    make(path, True, "My dog")
    assert embedded.read(str(path)) == Held("My dog", False)
    make(path)
    set_iptc(path, "Löwe".encode("latin-1"))
    assert embedded.read(str(path)) == Held("Löwe", False)
    with pytest.raises(OutputError, match="IPTC text is not UTF-8"):
        embedded.write(str(path), ENTRY, PLAIN)
    embedded.write(str(path), Entry("A lion"), PLAIN)
    assert embedded.read(str(path)) == Held("A lion", True)
    set_iptc(path, b"My lion")  # after us, with a program that knows no XMP
    assert embedded.read(str(path)) == Held("My lion", False)
    for name in ("a.png", "a.webp"):
        before = make(tmp_path / name, True, "My dog")
        assert embedded.read(str(tmp_path / name)) == Held("My dog", False)
        with pytest.raises(OutputError, match="can only be replaced in JPEG and TIFF"):
            embedded.write(str(tmp_path / name), ENTRY, PLAIN)
        assert (tmp_path / name).read_bytes() == before


def test_a_copy_and_the_time_are_kept_when_asked_for(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.jpg", tmp_path / "a.jpg_original"
    before = make(path)
    path.chmod(0o640)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    embedded.write(str(path), ENTRY, MetadataOptions(keep_time=True, backup=True))
    assert path.stat().st_mtime == copy.stat().st_mtime == 1_000_000_000
    assert path.stat().st_mode & 0o777 == 0o640
    embedded.write(str(path), Entry("A cat"), MetadataOptions(backup=True))
    assert path.stat().st_mtime > 1_700_000_000
    assert copy.read_bytes() == before  # the first one stays
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.jpg", "a.jpg_original"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.bmp", None, "can only be put into JPEG, PNG, WebP and TIFF"),
        ("a.gif", None, "can only be put into JPEG, PNG, WebP and TIFF"),
        ("a.avif", None, r"write sidecar files \(--format xmp\)"),
    ],
)
def test_a_format_that_cannot_be_written_is_refused(name: str, content: bytes | None, why: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(OutputError, match=why):
        embedded.check(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_a_damaged_picture_stays_as_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    whole = make(path, rich=True)
    for length in (0, 1, 11, 13, 40, 200):
        path.write_bytes(whole[:length])
        embedded.read(str(path))
        with pytest.raises(OutputError, match=r"the caption cannot be put into it"):
            embedded.write(str(path), ENTRY, PLAIN)
        assert path.read_bytes() == whole[:length]


def test_damaged_xmp_is_named_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    draw_picture(0).save(path, xmp=sidecar(description("My dog"))[:200])
    before = path.read_bytes()
    for call in (lambda: embedded.read(str(path)), lambda: embedded.write(str(path), ENTRY, PLAIN)):
        with pytest.raises(DataError, match="not XMP"):
            call()
    assert path.read_bytes() == before


def test_names_need_not_be_text(tmp_path: Path) -> None:
    path = os.path.join(str(tmp_path), os.fsdecode(b"caf\xe9 \xff.jpg"))  # noqa: PTH118
    make(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(path)
    embedded.write(path, ENTRY, PLAIN)
    assert embedded.read(path) == Held("A dog é 水", True, 0.5)


def test_a_packet_too_long_for_a_jpeg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    before = make(path)
    with pytest.raises(OutputError, match="cannot be put into it"):
        embedded.write(str(path), Entry("dog " * 20_000), PLAIN)
    assert path.read_bytes() == before


def test_containers_without_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="without pixels"):
        png_with(b"\x89PNG\r\n\x1a\n", b"xmp")
    with pytest.raises(ValueError, match="without pixels"):
        webp_with(b"RIFF\4\0\0\0WEBP", b"xmp", (1, 1))


def test_a_tiff_whose_pixels_would_change_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    before = make(path)
    monkeypatch.setattr(embedded, "strips", lambda content: containers.strips(content) + [content[:8]] * len(content))
    with pytest.raises(OutputError, match="its pixels would be lost"):
        embedded.write(str(path), ENTRY, PLAIN)
    assert path.read_bytes() == before


def test_a_correction_leaves_older_captions_that_were_not_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    make(path)
    embedded.write(str(path), Entry("My dog", by_person=True), PLAIN)
    set_iptc(path, b"For the paper")
    embedded.write(str(path), Entry("My old dog", by_person=True), PLAIN)
    assert embedded.read(str(path)) == Held("My old dog", False)
    assert b"For the paper" in path.read_bytes()
    make(path)
    set_iptc(path, b"For the paper")  # the only one, and so the one that is corrected
    embedded.write(str(path), Entry("For the book", by_person=True), PLAIN)
    assert b"For the paper" not in path.read_bytes()
