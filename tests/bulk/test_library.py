"""Captions in XMP sidecars and in pictures: what a first run writes, and what a second one keeps."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from conftest import draw_picture
from metadata.programs import SIDECARS
from metadata.test_xmp import description, facts, sidecar
from PIL import Image

import captioner
from bulk.test_run import interrupt
from captioner.bulk.library import XmpFiles
from captioner.bulk.outputs import Sidecars
from captioner.bulk.progress import Progress
from captioner.bulk.wanted import LIBRARIES, Wanted
from captioner.errors import OutputError
from captioner.inference.captioner import load
from captioner.metadata import embedded, sidecars
from captioner.metadata.xmp import Entry, Held
from captioner.options import DecodeOptions, MetadataOptions

Command: TypeAlias = Callable[..., tuple[int, str, str]]
PLACES = ["xmp", pytest.param("embed", marks=pytest.mark.skipif(not embedded.available(), reason="needs exiv2"))]


@pytest.fixture
def caption(command: Command, tiny_checkpoint_file: Path, pictures: list[Path]) -> Command:
    """`captioner caption FOLDER ... --checkpoint TINY`, in this process."""
    folder = pictures[0].parent
    return lambda *arguments: command("caption", folder, *arguments, "--checkpoint", tiny_checkpoint_file)


def held(picture: Path, place: str) -> Held | None:
    """The caption that is in a place."""
    return sidecars.Sidecars().held(str(picture)) if place == "xmp" else embedded.read(str(picture))


def of_a_person(picture: Path, place: str, text: str = "My dog") -> None:
    """Put a caption that is not ours into a place."""
    if place == "xmp":
        Path(f"{picture}.xmp").write_bytes(sidecar(description(text)))
        return
    import exiv2

    image = exiv2.ImageFactory.open(str(picture))
    image.readMetadata()
    image.setXmpPacket(sidecar(description(text)).decode())
    image.writeXmpFromPacket(True)
    image.writeMetadata()


def content(folder: Path) -> dict[str, bytes]:
    """The files of a folder with their content."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("place", PLACES)
def test_a_second_run_captions_what_is_new_and_keeps_what_a_person_did(
    place: str, caption: Command, pictures: list[Path], tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [(path, path.read_bytes()) for path in pictures[5:]]
    for path, _ in late:
        path.unlink()
    assert caption("-f", place)[0] == 0
    texts = [found.text for found in captioner.load(tiny_checkpoint_file).caption_batch(pictures[:5])]
    assert [held(path, place) for path in pictures[:5]] == [Held(text, True) for text in texts]
    for path, data in late:
        path.write_bytes(data)
    of_a_person(pictures[1], place, "My dog")
    of_a_person(pictures[2], place, "")
    before = content(pictures[0].parent)
    status, output, errors = caption("-f", place, "--dry-run")
    assert [line.partition("\t")[0] for line in output.splitlines()] == [str(path) for path in pictures[5:]]
    assert "2 of 7 pictures would get captions" in errors
    assert content(pictures[0].parent) == before
    status, _, errors = caption("-f", place)
    assert "5 of 7 pictures have captions already: kept" in errors
    assert "2 captioned, 0 failed" in errors
    assert all(held(path, place) for path in pictures)
    after = content(pictures[0].parent)
    assert all(after[name] == before[name] for name in before if name[:8] not in ("picture5", "picture6"))
    monkeypatch.setattr("captioner.inference.captioner.load", lambda *_: pytest.fail("loaded a model for nothing"))
    assert caption("-f", place)[0] == status == 0


@pytest.mark.parametrize("place", PLACES)
def test_overwrite_renews_ours_and_only_overwrite_edited_what_a_person_wrote(
    place: str, caption: Command, pictures: list[Path]
) -> None:
    caption("-f", place)
    of_a_person(pictures[1], place)
    of_a_person(pictures[2], place, "")
    renewed = ["--prompt", "the red dog", "-f", place]
    _, _, errors = caption(*renewed, "--overwrite")
    assert "2 of 7 pictures have captions already: kept" in errors
    assert held(pictures[1], place) == Held("My dog", False)
    assert held(pictures[2], place) == Held("", False)
    others = [held(path, place) for path in (pictures[0], *pictures[3:])]
    assert all(found and found.ours and found.text.startswith("The red dog") for found in others)
    caption(*renewed, "--overwrite-edited")
    assert all(
        found and found.ours and found.text.startswith("The red dog") for found in (held(p, place) for p in pictures)
    )


def test_a_sidecar_that_was_damaged_after_an_interruption_is_told_and_stays(
    pictures: list[Path], tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_checkpoint_file)
    with monkeypatch.context() as patch:
        patch.setattr(XmpFiles, "write", lambda self, rows: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            captioner.caption_files(pictures, format="xmp", model=model)
    damaged = Path(f"{pictures[1]}.xmp")
    damaged.write_text("damaged")
    said = list[str]()
    progress = Progress(quiet=True, say=said.append)
    summary = captioner.caption_files(pictures, format="xmp", model=model, resume=True, progress=progress)
    assert (summary.captioned, summary.failed, summary.skipped) == (0, 1, 6)
    assert str(damaged) in said[0]
    assert damaged.read_text() == "damaged"
    assert all(Path(f"{path}.xmp").is_file() for path in pictures)


def test_a_damaged_sidecar_does_not_stop_a_resumed_run_that_looks_for_moved_pictures(
    pictures: list[Path], tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, gone = load(tiny_checkpoint_file), pictures[0].with_name("gone.jpg")
    draw_picture(9).save(gone)
    captioner.caption_files(gone, format="xmp", model=model)
    gone.unlink()
    interrupt(model, 4, monkeypatch, paths=pictures, format="xmp")
    Path(f"{pictures[1]}.xmp").write_text("damaged")
    summary = captioner.caption_files(pictures, format="xmp", model=model, batch_size=1, resume=True)
    assert (summary.captioned, summary.failed, summary.skipped) == (3, 1, 3)
    assert Path(f"{pictures[1]}.xmp").read_text() == "damaged"
    assert all(Path(f"{path}.xmp").is_file() for path in pictures)


def test_a_picture_counts_as_failed_once_although_neither_it_nor_its_sidecar_can_be_read(
    pictures: list[Path], tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is captioned again as a whole if it lacks one of its pictures."""
    model = load(tiny_checkpoint_file)
    pictures[1].write_text("no picture")
    with monkeypatch.context() as patch:
        patch.setattr(XmpFiles, "write", lambda self, rows: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            captioner.caption_files(pictures[:2], format="xmp", model=model)
    pictures[0].write_text("no picture")
    Path(f"{pictures[0]}.xmp").write_text("damaged")
    summary = captioner.caption_files(pictures[:2], format="xmp", model=model, resume=True)
    assert (summary.captioned, summary.failed, summary.skipped) == (0, 2, 0)


@pytest.mark.parametrize("gone", [True, False])
def test_what_a_person_wrote_for_a_picture_that_is_gone_or_cannot_be_looked_at_stays(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """A picture may be converted to another format while the run goes on, and a disk of the network may fail."""
    path, written, failed = pictures[0], pictures[0].with_suffix(".xmp"), list[str]()
    library = XmpFiles([str(path)], MetadataOptions(), False, lambda path, reason: failed.append(reason))
    written.write_bytes(sidecar(description("My dog")))
    before, stat = written.read_bytes(), os.stat
    if gone:
        path.rename(path.with_suffix(".png"))
    else:

        def fails(of: Any, *arguments: Any, **named: Any) -> os.stat_result:
            if of == str(path):
                raise OSError(errno.EIO, "Input/output error", of)
            return stat(of, *arguments, **named)

        monkeypatch.setattr(os, "stat", fails)
    library.write([{"path": str(path), "caption": "A cat"}])
    assert len(failed) == 1
    assert str(path) in failed[0]
    assert written.read_bytes() == before
    assert not Path(f"{path}.xmp").exists()


@pytest.mark.skipif(not embedded.available(), reason="needs exiv2")
@pytest.mark.parametrize(("there", "place"), [("embed", "xmp"), ("xmp", "embed")])
def test_what_a_person_wrote_elsewhere_is_not_hidden(
    there: str, place: str, caption: Command, pictures: list[Path]
) -> None:
    of_a_person(pictures[1], there)
    _, _, errors = caption("-f", place)
    assert "1 of 7 pictures has captions already: kept" in errors
    assert held(pictures[1], place) is None
    assert (held(pictures[0], place) or Held("", False)).ours
    of_a_person(pictures[2], there)
    sidecars.Sidecars().write(str(pictures[3]), Entry("Ours"))  # which hides nothing
    assert "7 of 7" in caption("-f", place)[2]


@pytest.mark.parametrize("place", PLACES)
def test_what_a_person_writes_during_the_run_is_kept(
    place: str, pictures: list[Path], tiny_checkpoint_file: Path
) -> None:
    def late() -> Any:
        of_a_person(pictures[3], place)
        return load(tiny_checkpoint_file)

    captioner.caption_files(pictures, format=place, model=late)
    assert held(pictures[3], place) == Held("My dog", False)
    assert (held(pictures[4], place) or Held("", False)).ours


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_written_is_named_and_the_others_are_captioned(
    place: str, caption: Command, pictures: list[Path]
) -> None:
    bad = pictures[2]
    if place == "xmp":
        Path(f"{bad}.xmp").write_text(SIDECARS["digikam"][:500])
    else:
        (bad := bad.with_suffix(".bmp")).write_bytes(b"BM" + bytes(100))
    before = content(bad.parent)
    status, _, errors = caption("-f", place)
    assert status == 1
    assert f"captioner: {bad}" in errors
    assert f"{len(pictures) - (place == 'xmp')} captioned, 1 failed" in errors
    after = content(bad.parent)
    assert all(after[name] == before[name] for name in before if name.startswith(bad.name))
    assert not list(bad.parent.glob(".captioner*"))


def test_a_failure_while_writing_stops_no_other(pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    def late() -> Any:
        Path(f"{pictures[3]}.xmp").write_text("not xmp")
        return load(tiny_checkpoint_file)

    summary = captioner.caption_files(pictures, format="xmp", model=late)
    assert (summary.captioned, summary.failed) == (6, 1)
    assert Path(f"{pictures[3]}.xmp").read_text() == "not xmp"


@pytest.mark.parametrize("format", ["xmp", "sidecar"])
def test_what_a_kill_left_long_ago_is_cleared_away(format: str, caption: Command, pictures: list[Path]) -> None:
    left, young = (pictures[0].with_name(f".captioner-{name}.tmp") for name in ("left", "young"))
    for file in (left, young):
        file.touch()
    os.utime(left, (time.time() - 7200,) * 2)
    caption("-f", format)
    assert young.exists()
    assert not left.exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-f", "csv", "--legacy"], "legacy (--legacy) goes with the format embed only"),
        (["--overwrite-edited"], "overwrite_edited (--overwrite-edited) goes with the format xmp or embed only"),
        (["--embed", "--xmp-name", "stem"], "xmp_name (--xmp-name) goes with the format xmp only"),
        (["-f", "xmp", "-o", "a.xmp"], "xmp captions go beside or into their pictures: leave out output"),
        (["-f", "xmp", "--extension", ".xmp"], "goes with the format sidecar only"),
    ],
)
def test_options_that_a_format_does_not_use_are_refused(arguments: list[str], why: str, caption: Command) -> None:
    status, _, errors = caption(*arguments)
    assert status == 2
    assert why in errors


def test_embedding_without_the_library_says_what_to_install(
    caption: Command, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "exiv2", None)
    embedded._library.cache_clear()
    status, _, errors = caption("--embed")
    assert status == 2
    assert 'captions inside pictures need exiv2: pip install "captioner[metadata]"' in errors


def _write(place: str, paths: list[str], text: str) -> None:
    target = LIBRARIES[place](paths, MetadataOptions(), True, pytest.fail)
    target.write({"path": path, "caption": f"{text} {index}"} for index, path in enumerate(paths))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no such kills")
@pytest.mark.parametrize("place", PLACES)
def test_a_kill_leaves_each_file_as_it_was_or_with_its_caption(
    place: str, tmp_path: Path, forkserver: ForkServerContext, pytestconfig: pytest.Config
) -> None:
    pixels, sidecars = {}, list(SIDECARS.values())
    for index in range(120):
        path = tmp_path / f"{index:03}.{('jpg', 'png', 'webp', 'tif')[index % 4]}"
        draw_picture(index).save(path)
        pixels[str(path)] = Image.open(path).convert("RGB").tobytes()
        Path(f"{path}.xmp").write_text(sidecars[index % 3])
    paths, persons = list(pixels), [str(tmp_path / "007.tif"), str(tmp_path / "008.jpg")]
    for path in persons:
        of_a_person(Path(path), place)
    _write(place, paths, "old")
    rng, interrupted = random.Random(0), 0
    for kill in range(pytestconfig.getoption("kills")):
        process = forkserver.Process(target=_write, args=(place, paths, f"new {kill}"))
        process.start()
        while process.is_alive() and (held(Path(paths[0]), place) or Held("", False)).text != f"new {kill} 0":
            time.sleep(0.001)
        time.sleep(rng.random() * 0.1)
        process.kill()
        process.join()
        texts = [(held(Path(path), place) or Held("", False)) for path in paths]
        assert all(text.ours and text.text.endswith(f" {n}") for n, text in enumerate(texts) if n not in (7, 8))
        assert [held(Path(path), place) for path in persons] == [Held("My dog", False)] * 2
        interrupted += len({text.text.rpartition(" ")[0] for text in texts if text.ours}) > 1
    assert interrupted
    for index, path in enumerate(paths):
        assert Image.open(path).convert("RGB").tobytes() == pixels[path]
        if not (place == "xmp" and path in persons):
            now, before = facts(Path(f"{path}.xmp").read_bytes()), facts(sidecars[index % 3].encode())
            assert [fact for fact in now if fact[2] != f"captioner {captioner.__version__}"] == before


@pytest.mark.parametrize("place", PLACES)
def test_a_correction_replaces_ours_or_what_was_seen_and_nothing_else(
    place: str, caption: Command, pictures: list[Path]
) -> None:
    caption("-f", place)
    of_a_person(pictures[1], place)
    library = LIBRARIES[place]([str(path) for path in pictures], MetadataOptions(), False, pytest.fail)
    ours, theirs = str(pictures[0]), str(pictures[1])
    library.correct(ours, "A cat")
    assert held(pictures[0], place) == Held("A cat", False) == library.current(ours)
    with pytest.raises(OutputError, match="has another caption"):
        library.correct(theirs, "A cat")
    with pytest.raises(OutputError, match="has another caption"):
        library.correct(theirs, "A cat", seen="Your dog")
    assert held(pictures[1], place) == Held("My dog", False)
    library.correct(theirs, "My old dog", seen="My dog")
    library.correct(ours, "", seen="A cat")
    assert [held(path, place) for path in pictures[:2]] == [Held("", False), Held("My old dog", False)]
    # They are a person's from now on.
    caption("-f", place, "--overwrite", "--prompt", "the red dog")
    assert [held(path, place) for path in pictures[:2]] == [Held("", False), Held("My old dog", False)]
    asked = MetadataOptions(overwrite_edited=True)
    LIBRARIES[place]([theirs], asked, False, pytest.fail).correct(theirs, "A cat")
    assert held(pictures[1], place) == Held("A cat", False)


@pytest.mark.skipif(not embedded.available(), reason="needs exiv2")
@pytest.mark.parametrize(("there", "place"), [("embed", "xmp"), ("xmp", "embed")])
def test_a_correction_that_is_elsewhere_is_written_here_too(there: str, place: str, pictures: list[Path]) -> None:
    of_a_person(pictures[1], there)
    library = LIBRARIES[place]([str(pictures[1])], MetadataOptions(), False, pytest.fail)
    library.correct(str(pictures[1]), "My dog")
    assert held(pictures[1], place) == Held("My dog", False)
    before = content(pictures[1].parent)
    library.correct(str(pictures[1]), "My dog")
    assert content(pictures[1].parent) == before


@pytest.mark.parametrize("place", ["xmp", "embed"])
def test_a_correction_that_is_taken_back_leaves_our_caption(pictures: list[Path], place: str) -> None:
    path = str(pictures[0])
    library = LIBRARIES[place]([path], MetadataOptions(), False, pytest.fail)
    row = {"path": path, "caption": "A dog", "confidence": 0.5}
    library.write([{**row, "tags": [{"word": "grass"}]}])
    library.correct(path, "My dog")
    with pytest.raises(OutputError, match="has another caption"):
        library.restore(row, "My cat")
    library.restore(row, "My dog")
    assert held(pictures[0], place) == Held("A dog", True, 0.5)
    kept = Path(f"{path}.xmp") if place == "xmp" else pictures[0]
    assert kept.read_bytes().count(b">grass<") == 2  # as a keyword, and as ours


def test_a_correction_of_a_text_file_keeps_its_other_captions(pictures: list[Path]) -> None:
    picture, file = str(pictures[0]), pictures[0].with_suffix(".txt")
    texts = Sidecars([picture], extension=".txt")
    assert texts.current(picture) is None
    texts.correct(picture, "A cat")
    file.write_text("A cat\nA grey cat\n")
    with pytest.raises(OutputError, match="has another caption"):
        texts.correct(picture, "A dog")
    texts.correct(picture, "A dog", seen="A cat")
    assert file.read_text() == "A dog\nA grey cat\n"
    texts.correct(picture, "", seen="A dog")
    assert texts.current(picture) == Held("A grey cat", False)


def test_files_that_show_the_same_get_one_caption(
    caption: Command, command: Command, pictures: list[Path], tiny_checkpoint_file: Path
) -> None:
    folder, first = pictures[0].parent, pictures[0]
    for path in pictures[2:]:
        path.unlink()
    others = [first.with_suffix(suffix) for suffix in (".nef", ".mov")]
    for path in (*others, folder / "film.mp4"):
        path.touch()
    assert "picture0.jpg.xmp\t" in caption("-f", "xmp", "--dry-run")[1]
    status, _, errors = command("caption", folder, *others, "-f", "xmp", "--checkpoint", tiny_checkpoint_file)
    assert status == 0, errors
    assert "2 captioned, 0 failed" in errors
    assert "note: 1 video is passed over" in errors
    ours = held(first, "xmp")
    assert ours is not None
    assert ours.ours
    assert [held(path, "xmp") for path in others] == [ours, ours]
    assert not Path(f"{folder / 'film.mp4'}.xmp").exists()
    assert len(command("read", folder)[1].splitlines()) == 2
    assert "2 of 2 pictures have captions already" in caption("-f", "xmp")[2]
    of_a_person(others[0], "xmp", "My dog")
    assert command("read", folder)[1].startswith(f"{first}\tMy dog\n")
    assert "1 of 2" in caption("-f", "xmp", "--overwrite")[2]
    assert [held(path, "xmp") for path in (first, *others)] == [Held("My dog", False)] * 3
    library = XmpFiles([str(first)], MetadataOptions(), False, pytest.fail)
    library.correct(str(first), "A cat", seen="My dog")
    for path in (first, *others):
        assert sidecars.read(Path(f"{path}.xmp")) == Held("A cat", False)


def test_a_correction_leaves_what_another_person_wrote_of_the_raw_file(pictures: list[Path]) -> None:
    raw = pictures[0].with_suffix(".nef")
    raw.touch()
    of_a_person(pictures[0], "xmp", "My dog")
    of_a_person(raw, "xmp", "My other dog")
    library = XmpFiles([str(pictures[0])], MetadataOptions(), False, pytest.fail)
    library.correct(str(pictures[0]), "A cat", seen="My dog")
    assert sidecars.read(Path(f"{raw}.xmp")) == Held("My other dog", False)


@pytest.mark.skipif(not embedded.available(), reason="needs exiv2")
def test_nothing_is_put_into_raw_files(command: Command, tmp_path: Path, tiny_checkpoint_file: Path) -> None:
    (tmp_path / "a.nef").write_bytes(b"II*\0")
    status, _, errors = command("caption", tmp_path / "a.nef", "--embed", "--checkpoint", tiny_checkpoint_file)
    assert status == 1
    assert "a.nef: captions are never put into raw files: write sidecar files (--format xmp)" in errors
    assert (tmp_path / "a.nef").read_bytes() == b"II*\0"


def test_a_caption_file_is_seen_by_the_next_run_and_by_read(
    command: Command, pictures: list[Path], tiny_checkpoint_file: Path
) -> None:
    folder, model = pictures[0].parent, ("--checkpoint", tiny_checkpoint_file)
    command("caption", *pictures[1:], "-f", "sidecar", "--extension", ".caption", *model)
    texts = {path: path.read_text() for path in folder.glob("*.caption")}
    assert set(texts) == {path.with_suffix(".caption") for path in pictures[1:]}
    assert len(command("read", folder)[1].splitlines()) == 6
    for extension in ((), ("--extension", ".caption")):
        _, listed, _ = command("caption", folder, "-f", "sidecar", *extension, "--dry-run")
        assert listed == f"{pictures[0]}\t{pictures[0].with_suffix(extension[-1] if extension else '.txt')}\n"
    command("caption", folder, "-f", "sidecar", *model)
    assert list(folder.glob("*.txt")) == [pictures[0].with_suffix(".txt")]
    assert {path: path.read_text() for path in folder.glob("*.caption")} == texts
    # They stay what they are when they are renewed.
    command("caption", folder, "-f", "sidecar", "--overwrite", "--prompt", "the red dog", *model)
    assert list(folder.glob("*.txt")) == [pictures[0].with_suffix(".txt")]
    assert all(path.read_text().startswith("The red dog") for path in texts)
    # Some tools keep tags in .txt and captions in .caption. Whoever asks for the second gets it.
    command("caption", pictures[0], "-f", "sidecar", "--extension", ".caption", *model)
    assert pictures[0].with_suffix(".caption").exists()


def test_sidecars_go_with_pictures_that_were_moved(
    caption: Command, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, raw = pictures[0].parent, pictures[2].with_suffix(".nef")
    raw.write_bytes(b"raw")
    Path(f"{pictures[0]}.xmp").write_text(SIDECARS["digikam"])
    caption("-f", "xmp")
    ours = b">" + (held(pictures[1], "xmp") or Held("", False)).text.encode() + b"<"
    Path(f"{pictures[1]}.xmp").write_bytes(Path(f"{pictures[1]}.xmp").read_bytes().replace(ours, b">My dog<"))
    new = {path: folder / "sub" / f"new {path.name}" for path in (*pictures[:3], raw)}
    (folder / "sub").mkdir()
    for before, after in new.items():
        before.rename(after)
    with_title = Path(f"{new[pictures[2]]}.xmp")
    with_title.write_bytes(sidecar("<dc:title>On the bridge</dc:title>"))
    shutil.copy(pictures[3], folder / "sub" / "copy.jpg")
    before = content(folder / "sub")
    status, output, errors = caption("-f", "xmp", "-r", "--dry-run")
    assert content(folder / "sub") == before
    assert "3 moved: their captions would go with them" in errors
    assert output.count("\n") == 1
    assert "copy.jpg.xmp" in output
    status, _, errors = caption("-f", "xmp", "-r")
    assert status == 0
    assert "3 moved: their captions went with them" in errors
    assert "4 of 8 pictures have captions already: kept" in errors
    for was in (pictures[0], pictures[1], raw):
        assert Path(f"{new[was]}.xmp").read_bytes() == Path(f"{was}.xmp").read_bytes()
    assert held(new[pictures[1]], "xmp") == Held("My dog", False)
    assert held(new[pictures[2]], "xmp") == sidecars.read(Path(f"{pictures[2]}.xmp"))
    assert b"On the bridge" in with_title.read_bytes()
    monkeypatch.setattr("captioner.inference.captioner.load", lambda *_: pytest.fail("loaded a model for nothing"))
    (folder / "sub" / "copy.jpg").rename(folder / "8.jpg")
    assert "1 moved: its caption went with it" in caption("-f", "xmp", "-r")[2]
    assert caption("-f", "xmp", "-r")[0] == 0


def test_a_persons_caption_goes_with_a_moved_picture_also_when_paths_come_one_by_one(
    caption: Command, pictures: list[Path], tiny_checkpoint_file: Path
) -> None:
    caption("-f", "xmp")
    XmpFiles([str(pictures[0])], MetadataOptions(), False, pytest.fail).correct(str(pictures[0]), "My dog")
    pictures[0].rename(new := pictures[0].with_name("new.jpg"))
    paths = new.parent.glob("*.jpg")
    captioner.caption_files(paths, format="xmp", model=load(tiny_checkpoint_file))
    assert held(new, "xmp") == Held("My dog", False)


def test_of_several_sidecars_of_a_moved_picture_a_persons_counts(caption: Command, pictures: list[Path]) -> None:
    caption("-f", "xmp")
    first, new = pictures[0], pictures[0].with_name("new.jpg")
    Path(f"{first}.xmp").rename(first.with_name("zzz.xmp"))  # as another program names it
    XmpFiles([str(first)], MetadataOptions(), False, pytest.fail).correct(str(first), "My dog")
    shutil.copy(first.with_name("zzz.xmp"), first.with_name("yyy.jpg.xmp"))
    Path(f"{first}.xmp").rename(first.with_name("old.jpg.xmp"))
    first.rename(new)
    Path(first.with_name("a.jpg.xmp")).write_bytes(b"damaged")
    assert "1 moved" in caption("-f", "xmp", "--overwrite")[2]
    assert held(new, "xmp") == Held("My dog", False)


def test_a_sidecar_whose_picture_is_there_stays_its_own(caption: Command, pictures: list[Path]) -> None:
    caption("-f", "xmp")
    before = Path(f"{pictures[0]}.xmp").read_bytes()
    Path(f"{pictures[0]}.xmp").rename(pictures[0].with_suffix(".xmp"))  # as Adobe's programs name it
    shutil.copy(pictures[0], pictures[0].with_name("copy.jpg"))
    assert "moved" not in caption("-f", "xmp")[2]
    assert pictures[0].with_suffix(".xmp").read_bytes() == before


@pytest.mark.parametrize("place", PLACES)
def test_what_was_skipped_is_not_captioned_again(place: str, command: Command, pictures: list[Path]) -> None:
    path, said = str(pictures[0]), Progress(quiet=True)

    def library(unsure: str = "skip", least: float | None = None, overwrite: bool = False) -> Any:
        options = DecodeOptions(unsure=unsure, min_confidence=least)
        return Wanted(place, sys.stdout, options, overwrite=overwrite).target([path], {}, said)

    row = {"path": path, "caption": "", "unsure": "not sure", "confidence": 0.1, "tags": [{"word": "dog"}]}
    library().write([row])
    assert library().holds(path)
    assert library().current(path) is None
    assert command("read", path)[1] == ""
    assert not any(other.holds(path) for other in (library("write"), library(least=0.1), library(overwrite=True)))
    library("write").write([{"path": path, "caption": "A dog"}])
    assert library().current(path) == Held("A dog", True)
    library(overwrite=True).write([{"path": path, "caption": "A cat"}])
    assert b"skipped" not in Path(path if place == "embed" else f"{path}.xmp").read_bytes()


@pytest.mark.skipif(not embedded.available(), reason="needs exiv2")
def test_embedding_follows_the_sidecars_of_people_only(caption: Command, pictures: list[Path]) -> None:
    caption("-f", "xmp")
    XmpFiles([str(pictures[0])], MetadataOptions(), False, pytest.fail).correct(str(pictures[0]), "My dog")
    new = [path.rename(path.with_name(f"new {path.name}")) for path in pictures[:2]]
    assert "1 moved: its caption went with it" in caption("--embed")[2]
    assert [held(path, "xmp") for path in new] == [Held("My dog", False), None]
    assert embedded.read(str(new[0])) is None
    assert embedded.read(str(new[1])) is not None


def test_what_cannot_be_searched_for_moved_pictures_stops_nothing(
    caption: Command, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    caption("-f", "xmp")
    for path in pictures[:2]:
        path.rename(path.with_name(f"new {path.name}"))
    unreadable, content = Path(f"{pictures[0]}.xmp"), sidecars._content

    def refused(file: Path) -> bytes | None:
        if file == unreadable:
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return content(file)

    monkeypatch.setattr(sidecars, "_content", refused)
    status, _, errors = caption("-f", "xmp")
    assert status == 0
    assert "1 moved: its caption went with it" in errors


def test_folders_that_cannot_be_listed_hold_no_moved_pictures(
    pictures: list[Path], tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, listed = pictures[0].parent / "lost+found", os.scandir
    closed.mkdir()

    def refused(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    given = {"format": "xmp", "recursive": True, "model": load(tiny_checkpoint_file)}
    summary = captioner.caption_files(pictures, moved_from=closed.parent, **given)
    assert summary.captioned == len(pictures)


def test_a_text_file_that_two_pictures_share_is_kept_and_hidden_by_none(caption: Command, pictures: list[Path]) -> None:
    picture, twin = str(pictures[0]), str(pictures[0].with_suffix(".png"))
    shared = pictures[0].with_suffix(".txt")
    caption("-f", "sidecar")
    shared.write_text("My dog\n")
    draw_picture(9).save(twin)
    caption("-f", "sidecar")
    assert not Path(picture + ".txt").exists()
    texts = Sidecars([picture, twin], extension=".txt")
    texts.correct(twin, "My cat", seen="My dog")
    assert (texts.current(picture), texts.current(twin)) == (Held("My dog", False), Held("My cat", False))
    assert shared.read_text() == "My dog\n"
