"""The Python call behind `captioner caption`."""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from conftest import draw_picture

import captioner
from captioner.bulk.journal import Journal
from captioner.bulk.library import XmpFiles
from captioner.bulk.on_disk import OnDisk
from captioner.bulk.outputs import Output, Sidecars
from captioner.bulk.progress import Progress, Summary
from captioner.bulk.run import caption_files
from captioner.data.captions import read_captions
from captioner.errors import CaptionerError, DataError, InputError, OptionError, OutputError
from captioner.inference.results import FileResult, Row
from captioner.inference.torch_engine import captioner_of
from captioner.network.checkpoint import load_checkpoint
from captioner.options import DecodeOptions


@pytest.fixture(scope="module")
def model(tiny_checkpoint_file: Path) -> captioner.Captioner:
    return captioner.load(tiny_checkpoint_file, precision="float32")


def never() -> captioner.Captioner:
    pytest.fail("a model was loaded")


def test_onto_a_stream_into_a_file_and_beside_the_pictures(
    model: captioner.Captioner, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pictures[2].write_text("broken")
    good = [path for path in pictures if path != pictures[2]]
    captions = [caption.text for caption in model.caption_batch(good)]
    lines = "".join(f"{path}\t{caption}\n" for path, caption in zip(good, captions, strict=True))

    stream = io.StringIO()
    summary = caption_files(pictures, stream, model=lambda: model)
    assert stream.getvalue() == lines
    assert (summary.captioned, summary.failed, summary.skipped) == (6, 1, 0)
    assert summary.seconds > 0

    output = pictures[0].parent.parent / "out.txt"
    caption_files(pictures[0].parent, str(output), model=model)
    assert output.read_text() == lines
    caption_files(str(pictures[0].parent), format="sidecar", model=model)
    assert [path.with_suffix(".txt").read_text() for path in good] == [f"{caption}\n" for caption in captions]
    assert capsys.readouterr() == ("", "")
    caption_files(pictures, model=model)
    assert capsys.readouterr() == (lines, "")


def test_progress_goes_where_it_is_sent(model: captioner.Captioner, pictures: list[Path]) -> None:
    pictures[2].write_text("broken")
    said: list[str] = []
    caption_files(pictures, io.StringIO(), model=model, progress=Progress(say=said.append))
    failed, summary = said
    assert failed.startswith(f"captioner: {pictures[2]}: not a picture")
    assert summary.startswith("captioner: 6 captioned, 1 failed, ")


def test_what_a_run_did_stays_as_it_was_told_when_the_next_one_has_the_same_progress(
    model: captioner.Captioner, pictures: list[Path]
) -> None:
    pictures[0].with_suffix(".txt").write_text("mine")
    progress = Progress(quiet=True)
    first = caption_files(pictures[0], format="sidecar", model=never, progress=progress)
    second = caption_files(pictures, format="sidecar", model=model, progress=progress)
    assert (first.kept, first.captioned) == (1, 0)
    assert (second.kept, second.captioned) == (1, 6)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"format": "xml"},
            OptionError,
            "format must be one of text, jsonl, csv, coco, sidecar, html, xmp, embed, not 'xml'",
        ),
        ({"batch_size": 0}, OptionError, "batch_size must be at least 1"),
        ({"output": None, "resume": True}, OptionError, "needs output"),
        ({"output": io.StringIO(), "resume": True}, OptionError, "needs output"),
        ({"format": "sidecar"}, OptionError, "leave out output"),
        ({"suffix": "x"}, OptionError, "suffix .* goes with the format sidecar only"),
        ({"coco_images": "ids.json"}, OptionError, "coco_images .* goes with the format coco only"),
        ({"output": "s3://bucket/out"}, OptionError, "is an address"),
        ({"output": "pictures"}, OptionError, "is a folder"),
        ({"output": "taken"}, OutputError, "taken.journal: an interrupted run left its journal"),
        ({"paths": []}, InputError, "no pictures were given"),
        ({"output": "out.xlsx"}, OptionError, r"out.xlsx: captioner does not write .xlsx: give a .csv"),
        ({"output": "out.xlsx", "format": "csv"}, OptionError, "does not write .xlsx"),
        ({"output": "out.log"}, OptionError, "no format is known by .log: give a name in .txt, .tsv, .csv, "),
        ({"output": "pictures/picture0.jpg"}, OptionError, "no format is known by .jpg"),
        ({"output": "pictures/picture0.jpg", "format": "text"}, OutputError, "captions cannot be added to it"),
        ({"output": "pictures/picture0.jpg", "format": "csv", "overwrite": True}, OutputError, "is one of the pictu"),
        ({"output": "link", "format": "csv", "overwrite": True}, OutputError, "link: is one of the pictures"),
        ({"output": "nowhere/out.csv"}, OutputError, "nowhere/out.csv: cannot be .* no folder nowhere: make it"),
        ({"output": "pictures/picture0.jpg/out.csv"}, OutputError, "cannot be written .*Not a directory"),
        ({"output": None, "overwrite": True}, OptionError, "overwrite .* needs output"),
        ({"extension": ".caption"}, OptionError, "extension .* goes with the format sidecar only"),
        ({"output": None, "format": "sidecar", "extension": "/x"}, OptionError, "must be like .txt or .caption"),
        ({"output": None, "format": "sidecar", "extension": ".jpg"}, OptionError, "is that of pictures"),
        ({"output": None, "format": "sidecar", "extension": ".folder"}, OutputError, "picture1.folder: is a folder"),
        ({"output": "page.html"}, OutputError, r"page.html: exists, and html cannot be added to: .*--overwrite"),
        ({"output": "page.html", "format": "coco", "paths": "a/7.jpg"}, OutputError, "coco cannot be added to"),
        ({"paths": "https://example.com/a.jpg"}, InputError, "is an address, and captioner fetches nothing"),
        ({"paths": "."}, InputError, r"no pictures in this folder itself; 7 in its subfolders: add recursive \(-r\)"),
        (
            {"paths": "-", "stdin": io.BytesIO(b"\x89PNG\0\0\0\xff\xdc"), "format": "sidecar", "output": None},
            OptionError,
            "choose another",
        ),
        ({"paths": "taken"}, InputError, "no pictures in this folder"),
        ({"format": "coco", "paths": "a.jpg"}, DataError, "no COCO number"),
        ({"format": "coco", "paths": ["a/7.jpg", "b/7.jpg"]}, DataError, "has the same image id as a/7.jpg"),
        (
            {"format": "coco", "paths": ["a/3.jpg", "a/7.jpg", "b/2.jpg", "x_07.jpg", "b/9.jpg"]},
            DataError,
            "x_07.jpg: has the same image id as a/7.jpg",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: dict[str, Any],
    error: type[CaptionerError],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken.journal").touch()
    if given.get("output") == "taken":
        (tmp_path / "taken").rmdir()
    (tmp_path / "page.html").write_text("mine")
    (tmp_path / "link").symlink_to(pictures[3])
    pictures[1].with_suffix(".folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        caption_files(**{"paths": "pictures", "output": "out", "model": never, **given})
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"prompt": "the man"}, "prompt"),
        ({"batch_size": 3}, "batch_size"),
        ({"options": DecodeOptions(allow_stutter=True)}, "allow_stutter"),
        ({"options": DecodeOptions(beam_size=2)}, "beam_size"),
    ],
)
def test_a_run_is_resumed_by_one_that_writes_the_same_captions_only(
    model: captioner.Captioner, pictures: list[Path], tmp_path: Path, other: dict[str, Any], named: str
) -> None:
    pictures[3].write_text("broken")
    assert caption_files(pictures, tmp_path / "out", model=model, overwrite=True).failed == 1
    with pytest.raises(OutputError, match=f"the interrupted run had {named} "):
        caption_files(pictures, tmp_path / "out", model=model, overwrite=True, resume=True, **other)
    # How captions are written down does not matter.
    assert (
        caption_files(pictures, tmp_path / "out", format="csv", model=model, overwrite=True, resume=True).captioned == 6
    )


def test_another_checkpoint_does_not_go_on(
    model: captioner.Captioner, chinese_checkpoint_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    pictures[3].write_text("broken")
    caption_files(pictures, tmp_path / "out", model=model, overwrite=True)
    other = captioner.load(chinese_checkpoint_file, precision="float32")
    with pytest.raises(OutputError, match="the interrupted run had checkpoint "):
        caption_files(pictures, tmp_path / "out", model=other, overwrite=True, resume=True)


def test_a_model_that_no_file_holds_captions_into_files_and_goes_on_with_its_own_runs(
    model: captioner.Captioner, tiny_checkpoint_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    made = captioner_of(load_checkpoint(tiny_checkpoint_file))
    assert caption_files(pictures, tmp_path / "whole", model=made).captioned == 7
    lines = [f"{path}\t{made.caption(path)}\n" for path in pictures]
    assert (tmp_path / "whole").read_text() == "".join(lines)
    pictures[3].write_text("broken")
    assert caption_files(pictures, tmp_path / "out", model=made, overwrite=True).failed == 1
    for other in (captioner_of(load_checkpoint(tiny_checkpoint_file)), model):
        with pytest.raises(OutputError, match="the interrupted run had checkpoint 'in memory only, "):
            caption_files(pictures, tmp_path / "out", model=other, overwrite=True, resume=True)
    assert caption_files(pictures, tmp_path / "out", model=made, overwrite=True, resume=True).skipped == 0
    pictures[3].write_bytes(pictures[2].read_bytes())
    assert caption_files(pictures, tmp_path / "out", model=made, overwrite=True, resume=True).failed == 0


@pytest.mark.parametrize("stop", range(0, 7, 2))
def test_an_interrupted_call_is_resumed_to_the_same_bytes(
    model: captioner.Captioner, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    given: dict[str, Any] = {"paths": pictures, "format": "jsonl", "model": model, "batch_size": 2}
    caption_files(output=tmp_path / "whole", **given)
    whole = captioner.Captioner.caption_named

    def interrupted(*arguments: Any, **options: Any) -> Iterator[FileResult]:
        for number, result in enumerate(whole(*arguments, **options)):
            if number == stop:
                raise KeyboardInterrupt
            yield result

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(captioner.Captioner, "caption_named", interrupted)
        with pytest.raises(KeyboardInterrupt):
            caption_files(output=tmp_path / "out", progress=Progress(quiet=True, say=said.append), **given)
    assert said == [f"captioner: add resume (--resume) to go on from {tmp_path / 'out.journal'}"]
    assert not (tmp_path / "out").exists()
    summary = caption_files(output=tmp_path / "out", resume=True, **given)
    assert summary == Summary(7 - stop, 0, stop, summary.seconds)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "out.journal").exists()


def interrupt(model: captioner.Captioner, after: int, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
    """A run that is interrupted after some pictures."""
    whole = captioner.Captioner.caption_named

    def interrupted(*arguments: Any, **options: Any) -> Iterator[FileResult]:
        yield from islice(whole(*arguments, **options), after)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(captioner.Captioner, "caption_named", interrupted)
        with pytest.raises(KeyboardInterrupt):
            caption_files(model=model, batch_size=1, **given)


@pytest.mark.parametrize(("format", "place"), [("sidecar", Sidecars), ("xmp", XmpFiles)])
def test_a_resumed_run_looks_at_captioned_pictures_only_when_it_writes(
    model: captioner.Captioner, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, format: str, place: type[Output]
) -> None:
    """To look at the files of very many pictures takes long."""
    interrupt(model, 4, monkeypatch, paths=pictures, format=format)
    holds, begin, asked, before = place.holds, Journal.begin, list[str](), list[str]()
    monkeypatch.setattr(place, "holds", lambda self, path: asked.append(path) or holds(self, path))
    monkeypatch.setattr(Journal, "begin", lambda *given: before.extend(asked) or begin(*given))
    assert caption_files(pictures, format=format, model=model, resume=True, batch_size=1).skipped == 4
    assert before == [str(path) for path in pictures[4:]]
    assert set(asked) == {str(path) for path in pictures}


def test_a_dry_run_of_a_resumed_run_looks_at_captioned_pictures_too(
    model: captioner.Captioner,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupt(model, 4, monkeypatch, paths=pictures, format="sidecar")
    pictures[2].with_suffix(".txt").write_text("mine")
    caption_files(pictures, format="sidecar", model=never, resume=True, dry_run=True)
    assert [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()] == [
        str(path) for path in pictures if path != pictures[2]
    ]


def test_a_run_that_was_killed_after_its_last_sidecar_needs_no_model(
    model: captioner.Captioner, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            caption_files(pictures, format="sidecar", model=model)
    assert caption_files(pictures, format="sidecar", model=never, resume=True, batch_size=3).kept == 7
    assert not list(pictures[0].parent.glob(".*"))


def test_a_corrected_row_is_not_doubled_by_a_copy_that_is_gone(
    model: captioner.Captioner, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was killed after it had written the file, and before it deleted its journal."""
    output, copy = tmp_path / "out.csv", pictures[0].with_name("copy.jpg")
    shutil.copy(pictures[0], copy)
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            caption_files([pictures[0], copy], output, model=model)
    rows = list(csv.reader(output.read_text(encoding="utf-8-sig").splitlines()))
    rows[1][rows[0].index("caption")] = "My own words"
    with output.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    copy.unlink()
    before = output.read_bytes()
    caption_files([pictures[0]], output, model=model, resume=True)
    assert output.read_bytes() == before


def test_names_that_are_not_valid_text_stop_nothing_else(model: captioner.Captioner, pictures: list[Path]) -> None:
    strange = ["\ud83d/x.jpg", "a\0b/x.jpg"]
    summary = caption_files([str(pictures[0]), *strange], format="sidecar", model=model)
    assert (summary.captioned, summary.failed) == (1, 2)


def test_a_folder_is_in_the_way_although_something_beside_it_cannot_be_looked_at(pictures: list[Path]) -> None:
    pictures[0].with_suffix(".txt").mkdir()
    loop = pictures[0].with_name("loop.txt")
    loop.symlink_to(loop)
    with pytest.raises(OutputError, match="is a folder, where the captions of a picture should go"):
        caption_files(pictures, format="sidecar", model=never)


def test_no_row_of_the_journal_is_looked_up_by_itself(
    model: captioner.Captioner, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million of such questions takes long."""

    def asked(texts: OnDisk, key: object) -> None:
        raise AssertionError(key)

    interrupt(model, 4, monkeypatch, paths=pictures, output=tmp_path / "out.csv")
    monkeypatch.setattr(OnDisk, "__getitem__", asked)
    monkeypatch.setattr(OnDisk, "__contains__", asked)
    caption_files(pictures, tmp_path / "out.csv", model=model, resume=True, batch_size=1)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 8


def test_names_in_a_folder_tell_which_pictures_may_have_texts(tmp_path: Path) -> None:
    """All but the first few, for which it is not listed; some disks take names for the same that are not alike."""
    for name in ("e.txt", "f.jpg.txt", "G.TXT", "h.caption", "i.xmp", "Cafe\u0301.jpg.txt", "n.jpg.bak.txt"):
        (tmp_path / name).touch()
    few = [str(tmp_path / f"{number}.jpg") for number in range(32)]
    others = [str(tmp_path / f"{name}.jpg") for name in ("e", "f", "g", "h", "i", "caf\u00e9", "n", "n.jpg")]
    elsewhere = [str(tmp_path / "gone" / f"{number}.jpg") for number in range(20)]
    paths = [*few, *others, *elsewhere]

    def named(overwrite: bool = False, extension: str = "") -> list[str]:
        return [Path(path).stem for path in Sidecars(paths, overwrite, extension).perhaps(paths) if path not in few]

    gone = [Path(path).stem for path in elsewhere]
    assert named() == ["e", "f", "g", "h", "caf\u00e9", *gone]
    assert named(extension=".bak.txt") == ["n", "n.jpg", *gone]
    assert named(overwrite=True) == []


@pytest.mark.parametrize("folder", ["photo.txt", "photo.jpg.txt"])
def test_a_folder_in_the_place_of_a_text_is_told_before_anything_is_captioned(tmp_path: Path, folder: str) -> None:
    for name in ("photo.jpg", "other.jpg", *(["photo.png"] if folder == "photo.jpg.txt" else [])):
        draw_picture(0).save(tmp_path / name)
    (tmp_path / folder).mkdir()
    with pytest.raises(OutputError, match=f"{folder}: is a folder, where the captions of a picture should go"):
        caption_files(tmp_path, format="sidecar", model=never)
    (tmp_path / "photo.caption").write_text("mine")
    if folder == "photo.txt":
        with pytest.raises(AssertionError, match="went on"):
            caption_files(tmp_path, format="sidecar", model=went_on)


def went_on() -> captioner.Captioner:
    raise AssertionError("went on")


def test_sidecars_that_a_person_wrote_after_the_interruption_stay(
    model: captioner.Captioner, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(model, 4, monkeypatch, paths=pictures, format="sidecar")
    pictures[3].with_suffix(".txt").write_text("mine")
    summary = caption_files(pictures, format="sidecar", model=model, resume=True, batch_size=1)
    assert (summary.captioned, summary.skipped, summary.kept) == (3, 4, 0)
    assert pictures[3].with_suffix(".txt").read_text() == "mine"
    assert pictures[0].with_suffix(".txt").read_text() == f"{model.caption(pictures[0])}\n"
    assert not list(pictures[0].parent.glob(".*"))


def test_a_folder_that_has_grown_gets_sidecars_where_there_are_none(
    model: captioner.Captioner, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, said = pictures[0].parent, []
    mine = {pictures[1].with_suffix(".txt"): "mine", pictures[2].with_suffix(".txt"): ""}
    for path, content in mine.items():
        path.write_text(content)
    shared = folder / "picture3.png"
    pictures[3].rename(shared)
    caption_files(folder, format="sidecar", model=never, dry_run=True)
    missing = [*(pictures[index] for index in (0, 4, 5, 6)), shared]
    expected = sorted(f"{path}\t{path.with_suffix('.txt')}" for path in missing)
    assert sorted(capsys.readouterr().out.splitlines()) == expected
    summary = caption_files(folder, format="sidecar", model=model, progress=Progress(say=said.append))
    assert (summary.captioned, summary.kept) == (5, 2)
    assert said[0] == "captioner: 2 of 7 pictures have captions already: kept"
    assert {path: path.read_text() for path in mine} == mine
    assert caption_files(folder, format="sidecar", model=never).kept == 7
    caption_files(folder, format="sidecar", model=model, overwrite=True)
    assert [path.read_text() for path in mine] == [f"{model.caption(pictures[index])}\n" for index in (1, 2)]
    assert not list(folder.glob("*.caption"))
    assert caption_files(folder, format="sidecar", extension=".caption", model=model).captioned == 7
    assert pictures[0].with_suffix(".caption").read_text() == pictures[0].with_suffix(".txt").read_text()


def test_a_sidecar_counts_whether_or_not_its_name_had_to_be_long(
    model: captioner.Captioner, pictures: list[Path]
) -> None:
    other = pictures[0].with_suffix(".png")
    pictures[1].rename(other)
    caption_files([pictures[0], other], format="sidecar", model=model)
    assert Path(f"{pictures[0]}.txt").is_file()
    assert caption_files(pictures[0], format="sidecar", model=never).kept == 1


def test_a_sidecar_that_a_person_writes_during_the_run_stays(
    model: captioner.Captioner, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Journal.rows

    def late(journal: Journal) -> Iterator[Row]:
        pictures[3].with_suffix(".txt").write_text("mine")
        (pictures[0].parent / "table").write_text(f"{pictures[3]}\tmine\n")
        return write(journal)

    monkeypatch.setattr(Journal, "rows", late)
    caption_files(pictures, format="sidecar", model=model)
    caption_files(pictures, pictures[0].parent / "table", model=model)
    assert pictures[3].with_suffix(".txt").read_text() == "mine"
    lines = (pictures[0].parent / "table").read_text().splitlines()
    assert lines[0] == f"{pictures[3]}\tmine"
    assert len(lines) == 7


@pytest.mark.parametrize("format", ["text", "csv", "jsonl"])
def test_a_file_that_exists_is_added_to(
    model: captioner.Captioner, pictures: list[Path], tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, fresh = tmp_path / "out", tmp_path / "fresh"
    caption_files(pictures, fresh, format=format, model=model)
    caption_files(pictures[2:4], output, format=format, model=model)
    mine = output.read_text().replace(str(model.caption(pictures[2])), "My own words")
    output.write_text(mine)
    monkeypatch.chdir(pictures[0].parent)
    summary = caption_files(".", output, format=format, model=model)
    assert (summary.captioned, summary.kept) == (5, 2)
    assert output.read_text().startswith(mine)
    assert len(output.read_text().splitlines()) == len(fresh.read_text().splitlines())
    done = output.read_bytes()
    assert caption_files(pictures, output, format=format, model=never).kept == 7
    assert output.read_bytes() == done
    caption_files(pictures, output, format=format, model=model, overwrite=True)
    assert output.read_bytes() == fresh.read_bytes()


def test_a_run_that_adds_is_resumed_to_the_same_bytes(
    model: captioner.Captioner, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole.csv", "out.csv"):
        caption_files(pictures[4], tmp_path / name, model=model)
    caption_files(pictures, tmp_path / "whole.csv", model=model, batch_size=1)
    before = (tmp_path / "out.csv").read_bytes()
    interrupt(model, 3, monkeypatch, paths=pictures, output=tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == before
    with pytest.raises(OutputError, match="an interrupted run left its journal"):
        caption_files(pictures, tmp_path / "out.csv", model=never)
    summary = caption_files(pictures, tmp_path / "out.csv", model=model, resume=True, batch_size=1)
    assert (summary.captioned, summary.skipped, summary.kept) == (3, 3, 1)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not (tmp_path / "out.csv.journal").exists()


def test_the_same_command_tries_what_failed_again(
    model: captioner.Captioner, pictures: list[Path], tmp_path: Path
) -> None:
    good = pictures[2].read_bytes()
    pictures[2].write_text("broken")
    said: list[str] = []
    given: dict[str, Any] = {"paths": pictures, "output": tmp_path / "out.csv", "model": model}
    assert caption_files(**given, progress=Progress(say=said.append)).failed == 1
    assert said[-1] == "captioner: the same command tries the failed ones again"
    whole = {**given, "output": tmp_path / "whole.csv", "overwrite": True}
    assert caption_files(**whole, progress=Progress(say=said.append)).failed == 1
    how = "with resume and overwrite (--resume --overwrite)"
    assert said[-1] == f"captioner: the same command {how} tries the failed ones again"
    pictures[2].write_bytes(good)
    summary = caption_files(**given)
    assert (summary.captioned, summary.kept) == (1, 6)


def test_the_suffix_of_the_output_decides_its_format(
    model: captioner.Captioner, pictures: list[Path], tmp_path: Path
) -> None:
    picture = pictures[0].rename(tmp_path / "7.jpg")
    begin = {
        ".csv": '"path",',
        ".jsonl": '{"path": ',
        ".json": "[\n{",
        ".HTML": "<!doctype html>",
        ".txt": str(picture),
    }
    for suffix, expected in {**begin, ".tsv": str(picture), "": str(picture)}.items():
        caption_files(picture, tmp_path / f"out{suffix}", model=model)
        assert (tmp_path / f"out{suffix}").read_text(encoding="utf-8-sig").startswith(expected)
    said: list[str] = []
    caption_files(picture, tmp_path / "other.csv", format="jsonl", model=model, progress=Progress(say=said.append))
    assert (tmp_path / "other.csv").read_text().startswith('{"path": ')
    assert "other.csv will hold jsonl, as --format says" in said[0]


@pytest.mark.parametrize("format", ["text", "html", "csv"])
def test_one_picture_on_stdin(model: captioner.Captioner, pictures: list[Path], tmp_path: Path, format: str) -> None:
    for number, picture in enumerate(pictures[:2], start=1):
        with picture.open("rb") as stdin:
            given: dict[str, Any] = {"format": format, "model": model, "overwrite": format == "html"}
            assert caption_files("-", tmp_path / "out", stdin=stdin, **given).captioned == 1
        content = (tmp_path / "out").read_text()
        assert str(model.caption(picture)) in content
        assert format != "html" or "data:image/jpeg" in content
        assert format != "text" or content.count("-\t") == number, "another picture each time"


def test_pictures_in_subfolders_are_told_of(
    model: captioner.Captioner, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictures[0].parent
    for number, place in enumerate(("one", "two/three")):
        (folder / place).mkdir(parents=True)
        pictures[number].rename(folder / place / pictures[number].name)
    said: list[str] = []
    for given in (str(folder), f"{folder}/"):
        caption_files(given, model=model, dry_run=True, progress=Progress(say=said.append))
        assert said[0].startswith("captioner: note: 2 more pictures in the subfolders of ")
        assert said.pop(0).endswith(": add recursive (-r)")
        said.clear()
    caption_files(folder, model=model, dry_run=True, recursive=True, progress=Progress(say=said.append))
    caption_files(pictures[2:], model=model, dry_run=True, progress=Progress(say=said.append))
    assert not [line for line in said if "note" in line]


def test_what_is_not_there_needs_no_model(pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jpg: no such file or folder$"):
        caption_files(tmp_path / "none.jpg", model=never)
    with pytest.raises(InputError, match=r"a: no such file or folder, nor are the 1,000 others there$"):
        caption_files(["a", *map(str, range(1000))], tmp_path / "out.csv", model=never)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.txt"])
def test_captions_of_pictures_that_were_moved_are_told_of(
    output: str, model: captioner.Captioner, pictures: list[Path], tmp_path: Path
) -> None:
    folder, said = pictures[0].parent, list[str]()
    given: dict[str, Any] = {"paths": folder, "output": tmp_path / output, "model": model}
    caption_files(**given, progress=Progress(say=said.append))
    draw_picture(9).save(folder / "new name.jpg")  # it was changed as well, so nobody knows that it was moved
    pictures[0].unlink()
    caption_files(**given, progress=Progress(say=said.append))
    (note,) = (line for line in said if "note" in line)
    assert f"1 picture with a caption in {tmp_path / output} is gone, such as {pictures[0]}: to keep" in note
    said.clear()
    caption_files(**given, progress=Progress(say=said.append))
    assert len(said) == 1, "there is nothing new to caption"


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
def test_captions_go_with_pictures_that_were_moved(
    output: str, model: captioner.Captioner, pictures: list[Path], tmp_path: Path
) -> None:
    folder, file, said = pictures[0].parent, tmp_path / output, list[str]()
    given: dict[str, Any] = {"paths": folder, "output": file, "recursive": True}
    caption_files(**given, model=model)
    text = file.read_text("utf-8-sig")
    digests = [row["digest"] for row in rows_of(text)]
    assert digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures]
    lines = text.splitlines()
    mine = next(row["caption"] for row in rows_of(text) if row["path"] == str(pictures[2]))
    number = next(n for n, line in enumerate(lines) if str(pictures[2]) in line)
    lines[number] = lines[number].replace(mine, "My dog")
    file.write_text("\n".join(lines), "utf-8-sig")  # without an end of the last line
    new = {pictures[2]: folder / "sub" / "=new, 写真.jpg", pictures[3]: folder / "0.jpg"}
    (folder / "sub").mkdir()
    for before, after in new.items():
        before.rename(after)
    shutil.copy(pictures[4], folder / "copy.jpg")
    before = file.read_bytes()
    caption_files(**given, dry_run=True, progress=Progress(say=said.append))
    assert "2 moved: their captions would go with them" in said[0]
    assert "1 of 8 pictures would get captions" in said[-1]
    assert file.read_bytes() == before
    said.clear()
    summary = caption_files(**given, model=model, progress=Progress(say=said.append))
    assert (summary.captioned, summary.moved, summary.kept) == (1, 2, 5)
    assert not [line for line in said if "gone" in line]
    assert "2 moved: their captions went with them" in said[0]
    assert file.read_bytes().startswith(before)
    rows = rows_of(file.read_text("utf-8-sig"))
    by_path = {row["path"].removeprefix("'"): row for row in rows}
    assert len(rows) == len(by_path) == 10
    assert by_path[str(new[pictures[2]])]["caption"] == "My dog"
    for was, is_now in new.items():
        assert by_path[str(is_now)] == {**by_path[str(was)], "path": str(is_now)}
    assert all(len(texts) == 1 for texts in read_captions(file).captions.values())  # a digest is no caption
    (folder / "copy.jpg").rename(folder / "9.jpg")
    assert caption_files(**given, model=never).moved == 1
    assert caption_files(**given, model=never).kept == 8


def rows_of(text: str) -> list[dict[str, Any]]:
    """The rows of csv or jsonl."""
    if text.startswith("{"):
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_table_without_digests_is_added_to_as_before(model: captioner.Captioner, pictures: list[Path]) -> None:
    file = pictures[0].with_name("out.csv")
    file.write_text(f'path,caption\n"{pictures[0]}",My dog\n')
    pictures[0].rename(pictures[0].with_name("new.jpg"))
    said = list[str]()
    caption_files(pictures[0].parent, file, model=model, progress=Progress(say=said.append))
    assert "is gone, such as" in said[0]
    assert [len(row) for row in csv.reader(file.open())] == [2] * 9


def test_a_coco_file_without_ids_says_which_json_needs_none(pictures: list[Path], tmp_path: Path) -> None:
    odd = pictures[0].rename(pictures[0].with_name("odd name.jpg"))
    with pytest.raises(DataError, match=r"no COCO number .*; or write jsonl, which needs no ids"):
        caption_files(odd, tmp_path / "out.json", model=never)


@pytest.mark.parametrize("format", ["text", "jsonl", "csv", "html", "sidecar", "xmp", "coco"])
def test_names_of_files_need_not_be_valid_text(
    model: captioner.Captioner, pictures: list[Path], tmp_path: Path, format: str
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [b"caf\xe9_000000000001.jpg", b"caf\xe9_000000000002.jpg"]
    for number, name in enumerate(names):
        (folder / os.fsdecode(name)).write_bytes(pictures[number].read_bytes())
    output = None if format in ("sidecar", "xmp") else tmp_path / f"captions.{format}"
    for captioned in (2, 0):
        if captioned or format in ("text", "jsonl", "csv", "sidecar", "xmp"):
            assert caption_files(folder, output, format=format, model=model, index=False).captioned == captioned
