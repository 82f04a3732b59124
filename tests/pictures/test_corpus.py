"""Folders full of damaged, odd and hostile pictures: every file is captioned or named, and nothing else happens."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import draw_picture
from corpus import FORMATS, build, encoded, example, many_scans, strange_names
from memory import forget_peak, peak_memory
from PIL import Image, ImageFile

import captioner
from captioner.errors import ImageError, one_line
from captioner.network.preprocess import Preprocess
from captioner.pictures import load as images
from captioner.pictures.load import load_image

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs the files of a Unix system"),
]


# `python -m captioner` that writes its peak memory to a file when it ends.
MEASURED = f"""
import atexit, runpy, sys
from pathlib import Path
sys.path.append({str(Path(__file__).parent.parent)!r})
from memory import peak_memory
file = Path(sys.argv.pop(1))
atexit.register(lambda: file.write_text(str(peak_memory())))
runpy.run_module("captioner", run_name="__main__", alter_sys=True)
"""
# Reads a picture; prints its pixels, and how many bytes that took.
CONVERSION = f"""
import sys
sys.path.append({str(Path(__file__).parent.parent)!r})
from captioner.pictures.load import load_image
from memory import forget_peak, peak_memory
forget_peak()
before = peak_memory()
size = load_image(sys.argv[1]).size
print(size[0] * size[1], peak_memory() - before)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "pictures"
    assert len(build(path)) >= 200
    return path


def entries(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.iterdir())


@pytest.mark.timeout(200)
def test_the_command_captions_or_names_each_and_the_good_ones_as_ever(
    folder: Path, tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "peak"), "caption", str(folder), "-", "--format", "jsonl"]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--checkpoint", str(tiny_checkpoint_file)], stdin=subprocess.PIPE, stdout=out, stderr=errors
        )
        assert process.stdin
        process.stdin.write(os.fsencode(folder / "folder.jpg") + b"\n")  # which the search passes over
        process.stdin.close()
        process.wait()
    said = (tmp_path / "errors").read_bytes().decode(errors="surrogateescape")
    assert process.returncode == 1, said
    assert "Traceback" not in said
    captions = {row["path"]: row["caption"] for row in map(json.loads, (tmp_path / "out").read_bytes().splitlines())}
    failures = [line for line in said.split("\n") if line.startswith(f"captioner: {folder}")]
    assert len(captions) + len(failures) == len(entries(folder))
    for path in set(entries(folder)) - captions.keys():
        assert any(line.startswith(f"captioner: {one_line(path)}: ") for line in failures), path
    alone = captioner.load(tiny_checkpoint_file).caption_files(sorted(path for path in captions if "good" in path))
    assert {row.path: row.caption.text for row in alone if row.caption} == {
        path: caption for path, caption in captions.items() if "good" in path
    }
    assert sum("good" in path for path in captions) == 7
    assert int((tmp_path / "peak").read_text()) < 1_500_000_000


def test_python_gives_a_caption_or_one_line_for_each(folder: Path, tiny_checkpoint_file: Path) -> None:
    results = list(captioner.load(tiny_checkpoint_file).caption_files(entries(folder)))
    assert [result.path for result in results] == entries(folder)
    for result in results:
        assert (result.caption is None) != (result.error is None)
        if result.error is not None:
            assert result.error.encode(errors="surrogateescape").decode(errors="replace").isprintable()
            assert result.error.startswith(one_line(result.path))
    captioned = {Path(result.path).name for result in results if result.caption}
    refused = {Path(result.path).name for result in results if result.error}
    names = captioned | refused
    whole = "1 x 1", "turned", "icc", "in truth", "broken", "16 bit", "cmyk", "animated", "long", "palette"
    assert {name for name in names if name.startswith(whole)} | {*strange_names()} <= captioned
    assert {name for name in names if name.startswith(("bomb", "zeros", "loop", "cut 00"))} <= refused
    assert {"pipe.jpg", "folder.jpg", "nowhere.jpg", "a program.jpg", "pickle.png"} <= refused


def test_no_picture_starts_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    with pytest.raises(ImageError, match="not a picture, or a format"):
        load_image(encoded(draw_picture(1), "EPS"))


class TestScans:
    def test_endless_scans_are_refused_at_once(self) -> None:
        data = many_scans()
        assert len(data) < 300_000
        started = time.process_time()
        with pytest.raises(ImageError, match="more than 100 scans"):
            load_image(data)
        assert time.process_time() - started < 1.0

    def test_a_progressive_picture_is_read(self) -> None:
        assert load_image(encoded(draw_picture(1), "JPEG", progressive=True)).size == (96, 72)

    def test_what_follows_the_picture_is_not_counted(self) -> None:
        """Phones put a video behind the picture, in which anything may stand."""
        data = example(".jpg")
        assert load_image(data + b"\xff\xda" * 500).size == (96, 72)

    def test_nor_is_what_lies_in_metadata(self) -> None:
        assert load_image(encoded(draw_picture(1), "JPEG", comment=b"\xff\xda" * 500)).size == (96, 72)


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else a few files of some kB, each with the most pixels that are allowed, would fill the memory."""
    monkeypatch.setattr(images, "LARGE", 5000)
    at_once, most, lock = 0, 0, threading.Lock()
    plain = ImageFile.ImageFile.load

    def load(self: ImageFile.ImageFile) -> object:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        try:
            return plain(self)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    for size, expected in (((96, 72), 1), ((48, 32), 4)):
        most = 0
        threads = [threading.Thread(target=load_image, args=[example(".bmp", size)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1 if expected == 1 else most > 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs the peak memory of a process")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "F", "I"])
def test_conversion_takes_the_memory_of_two_pictures(mode: str, tmp_path: Path) -> None:
    """4 bytes a pixel as it is decoded, as many as it is returned."""
    file = tmp_path / "large"
    options = {"format": "TIFF", "compression": "tiff_lzw"} if mode in "FI" else {"format": "PNG", "compress_level": 1}
    Image.new(mode, (6000, 4000)).save(file, **options)
    done = subprocess.run([sys.executable, "-c", CONVERSION, str(file)], capture_output=True, text=True, check=True)
    pixels, memory = map(int, done.stdout.split())
    assert memory < 10 * pixels


def test_fuzz(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutants of pictures of every format are pictures or an ImageError, soon and in little memory."""
    mutants = pytestconfig.getoption("mutants")
    monkeypatch.setattr(images, "MAX_PIXELS", 4_000_000)  # changed sizes would take time
    rng = random.Random(mutants)
    seeds = list(_seeds())
    read, slowest, started = 0, 0.0, time.monotonic()
    peak = 0
    for number in range(mutants):
        data = mutated(rng, seeds)
        begun = time.process_time()
        try:
            Preprocess(64).pixels(load_image(data))
            message = None
        except ImageError as error:
            message = str(error)
        if message is None:
            read += 1
        else:
            assert message.startswith("the picture: ")
            assert message.isprintable()
        slowest = max(slowest, time.process_time() - begun)
        if number == mutants // 10:
            forget_peak()
            peak = peak_memory()
    grown = peak_memory() - peak
    print(
        f"\n{mutants} mutants: {read} are still pictures, {mutants - read} are refused; slowest {slowest:.1f} s, "
        f"peak memory {grown / 1e6:.0f} MB more than after a tenth of them, {time.monotonic() - started:.0f} s in all"
    )
    assert slowest < 10.0
    assert 0.05 < read / mutants < 0.95
    assert grown < 500_000_000


def _seeds() -> list[bytes]:
    seeds = [example(suffix) for suffix in FORMATS]
    frames = [draw_picture(number) for number in range(2)]
    exif = Image.Exif()
    exif[0x0112] = 6
    for format in ("PNG", "GIF", "WEBP", "TIFF"):
        seeds.append(encoded(frames[0], format, save_all=True, append_images=frames[1:]))
    seeds.append(encoded(frames[0], "JPEG", progressive=True, exif=exif, icc_profile=bytes(200)))
    seeds.append(encoded(frames[0].convert("RGBA"), "PNG", exif=exif))
    seeds.append(encoded(frames[0].quantize(8), "PNG", transparency=2))
    for compression in ("jpeg", "tiff_deflate", "packbits", None):
        seeds.append(encoded(frames[0], "TIFF", compression=compression))
    seeds.append(encoded(frames[0].convert("CMYK"), "JPEG"))
    seeds.append(encoded(frames[0].convert("1"), "TIFF", compression="group4"))
    return seeds


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds with a few changes, where the headers are more often than elsewhere."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(min(len(data), rng.choice([40, 300, len(data)])) or 1)
        length = rng.choice([1, 1, 2, 4, 30])
        deed = rng.randrange(6)
        if deed == 0:
            data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1 << rng.randrange(8)])
        elif deed == 1:
            data[at : at + length] = rng.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * length
        elif deed == 2:
            data[at : at + length] = rng.randbytes(length)
        elif deed == 3:
            del data[at : at + length]
        elif deed == 4:
            data[at:at] = data[at : at + 10 * length]
        else:
            other = rng.choice(seeds)
            start = rng.randrange(len(other))
            data[at : at + length] = other[start : start + length]
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data)
