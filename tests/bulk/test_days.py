"""A photo library through the days of its owner: captions, corrections and a grown folder, with kills all the while."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw_picture
from metadata.programs import SIDECARS
from metadata.test_xmp import description, facts, sidecar
from PIL import Image

from captioner.metadata import embedded
from captioner.metadata.sidecars import Sidecars
from captioner.metadata.xmp import Held

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform == "win32", reason="has no such kills"),
    pytest.mark.skipif(not embedded.available(), reason="needs exiv2"),
]
FOLDERS = ("", "2024 Sommer", "2024 Sommer/Zürich – Ünïcode", "東京 旅行/🐕 best", "d'or & <tags>")
SUFFIXES = (".jpg", ".png", ".webp", ".tif", ".JPG", ".gif", ".bmp")
EMBEDDED = (".jpg", ".png", ".webp", ".tif")
# The command in a process that is killed once it has written so many files and wants to finish another.
_DYING = """import os, signal, sys
left, fsync = int(sys.argv.pop(1)), os.fsync
def finish(file):
    global left
    left -= 1
    os.kill(os.getpid(), signal.SIGKILL) if left < 0 else fsync(file)
os.fsync = finish
from captioner.cli.main import main
sys.exit(main())"""
OURS = ("captioner ",)  # what a new sidecar says of who made it


class Library:
    """A folder of pictures, and what must not change in it."""

    def __init__(self, folder: Path, pictures: int, checkpoint: Path, kills: int):
        self.folder, self.checkpoint, self.kills_left = folder, checkpoint, kills
        self.rng, self.kills, self.torn = random.Random(0), 0, 0
        self.pictures = [self._picture(index) for index in range(pictures)]
        self.persons: dict[Path, str] = {}  # the captions that people wrote
        for index, picture in enumerate(self.pictures):
            self._surroundings(index, picture)
        (folder / "broken.jpg").write_bytes(self.pictures[0].read_bytes()[:300])
        (folder / "holiday.mp4").write_bytes(bytes(100))
        (folder / "notes.txt").write_text("buy film")
        self.before = self.content()

    def _picture(self, index: int) -> Path:
        folder = self.folder / FOLDERS[index % len(FOLDERS)]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"photo é{index:04}{SUFFIXES[index % len(SUFFIXES)]}"
        draw_picture(index).save(path)
        return path

    def _surroundings(self, index: int, picture: Path) -> None:
        """Sidecars of three programs for a third of the pictures, and captions of people for some."""
        full, stem = Path(f"{picture}.xmp"), picture.with_suffix(".xmp")
        if index % 3 == 0:
            program = ("digikam", "darktable", "lightroom")[index // 3 % 3]
            (stem if program == "lightroom" else full).write_text(SIDECARS[program])
        elif index % 17 == 1:
            full.write_bytes(sidecar(description(f"Mine &amp; no. {index}")))
            self.persons[picture] = f"Mine & no. {index}"
        elif index % 17 == 2:
            full.write_bytes(sidecar(description("")))
            self.persons[picture] = ""

    def content(self) -> dict[Path, bytes]:
        """All files."""
        return {path: path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}

    def run(self, *arguments: object, kills: int = 0, work: int = 0) -> str:
        """A command that writes `work` files, killed at random moments and begun again. What it said in the end."""
        words = [*map(str, arguments)]
        if words[0] == "caption":
            words += ["--checkpoint", str(self.checkpoint), "--resume", "--min-length", "3"]
        for _ in range(kills):
            writes = self.rng.randrange(
                (work or len(self.pictures)) // (3 * kills)
            )  # so that there is something left to do
            done = self._process("-c", _DYING, str(writes), *words)
            assert done.returncode == -signal.SIGKILL, done.stderr
            self.kills += 1
            for left in self.folder.rglob(".captioner-*.tmp"):
                self.torn += left.stat().st_mtime > 0
                os.utime(left, (0, 0))  # as if the next run came hours later
        done = self._process("-m", "captioner", *words)
        assert done.returncode in (0, 1), done.stderr
        return done.stderr

    def _process(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command, folder = [sys.executable, *arguments], self.folder.parent
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)

    def check(self, changed_pictures: bool = False) -> None:
        """Nothing that is not ours has changed."""
        now = self.content()
        for path, old in self.before.items():
            if path.suffix == ".xmp":
                self._check_sidecar(path, old, now[path])
            elif not (changed_pictures and path in self.pictures and path.suffix.lower() in EMBEDDED):
                assert now[path] == old, path
            else:
                assert Image.open(path).tobytes() == self._pixels(path, old), path
        strange = {path for path in now.keys() - self.before.keys() if path.suffix != ".xmp"}
        assert not strange
        for picture, text in self.persons.items():
            assert self.held(picture) == Held(text, False), picture

    def _pixels(self, path: Path, content: bytes) -> bytes:
        file = self.folder.parent / f"before{path.suffix}"
        file.write_bytes(content)
        return Image.open(file).tobytes()

    def _check_sidecar(self, path: Path, old: bytes, new: bytes) -> None:
        then, now = (
            [(tag, attributes, text or "") for tag, attributes, text, _ in facts(xmp) if not str(text).startswith(OURS)]
            for xmp in (old, new)
        )
        assert now == then, path

    def held(self, picture: Path) -> Held | None:
        """The caption that counts."""
        found = [held for held in (Sidecars().held(str(picture)), embedded.read(str(picture))) if held]
        return min(found, key=lambda held: held.ours, default=None)


@pytest.fixture
def library(tmp_path: Path, tiny_checkpoint_file: Path, pytestconfig: pytest.Config) -> Library:
    """As many pictures as asked for."""
    folder = tmp_path / "library"
    folder.mkdir()
    return Library(folder, pytestconfig.getoption("library"), tiny_checkpoint_file, pytestconfig.getoption("kills"))


def test_nothing_that_a_person_wrote_is_lost(library: Library) -> None:
    folder, kills = library.folder, library.kills_left
    total = len(library.pictures)

    # The first day: captions beside the pictures.
    library.run("caption", folder, "-r", "-f", "xmp", kills=kills // 3)
    library.check()
    assert not [picture for picture in library.pictures if not library.held(picture)]

    # Nothing is new.
    before = library.content()
    said = library.run("caption", folder, "-r", "-f", "xmp")
    assert f"{total:,} of {total + 1:,} pictures have captions already: kept" in said
    assert library.content() == before

    # A person corrects 20 in another program, and the folder grows.
    for picture in library.rng.sample([p for p in library.pictures if p not in library.persons], 20):
        _correct(picture, f"Corrected: {picture.stem}")
        library.persons[picture] = f"Corrected: {picture.stem}"
    library.before |= {path: content for path, content in library.content().items() if path not in library.before}
    library.run("caption", folder, "-r", "-f", "xmp")
    library.check()
    library.run("caption", folder, "-r", "-f", "xmp", "--overwrite", "--prompt", "the red dog", kills=kills // 3)
    library.check()
    for picture in library.pictures:
        held = library.held(picture)
        assert held
        assert held.ours == (picture not in library.persons)
        assert not held.ours or held.text.startswith("The red dog")

    # Corrections in a spreadsheet.
    table = folder.parent / "captions.csv"
    library.run("read", folder, "-r", "-o", table)
    with table.open(encoding="utf-8-sig", newline="") as file:
        names, *rows = csv.reader(file)
    assert len(rows) == total
    column = names.index("caption")
    for row in library.rng.sample(rows, 20):
        row[column] = f"{row[column]} (checked)".strip()
        library.persons[Path(row[0])] = row[column]
    with table.open("w", encoding="utf-16", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([names, *rows])
    library.run("apply", table, "--format", "xmp", "--overwrite-edited", kills=2, work=20)
    library.check()

    # Into the pictures.
    library.run("apply", table, "--format", "embed", kills=kills // 3)
    library.check(changed_pictures=True)
    before = library.content()
    library.run("apply", table, "--format", "embed")
    assert library.content() == before
    found = folder.parent / "held.jsonl"
    library.run("read", folder, "-r", "--from", "embedded", "-o", found)
    held = {Path(row["path"]): row["caption"] for row in map(json.loads, found.read_text().splitlines())}
    wanted = {Path(row[0]): row[column] for row in rows}
    assert held == {path: text for path, text in wanted.items() if path.suffix.lower() in EMBEDDED}
    assert library.kills == 3 * (kills // 3) + 2
    assert library.torn
    torn = f"{library.torn} of them while a file was written"
    print(f"\nlibrary: {total} pictures, {library.kills} kills, {torn}; nothing lost")
    assert not [path for path in library.content() if ".captioner" in path.name]


def _correct(picture: Path, text: str) -> None:
    """As a photo program does that keeps all fields it does not know."""
    file = Sidecars().file(str(picture))
    old = (library_text := file.read_text(encoding="utf-8"))
    ours = Sidecars().held(str(picture))
    assert ours
    assert ours.ours
    file.write_text(library_text.replace(f">{ours.text}<", f">{text}<"), encoding="utf-8")
    assert file.read_text(encoding="utf-8") != old
