"""The Python call behind `captioner caption`."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import captioner
from captioner.bulk.progress import Progress, Summary
from captioner.bulk.run import caption_files
from captioner.errors import CaptionerError, DataError, InputError, OptionError, OutputError
from captioner.inference.results import FileResult
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


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"format": "xml"}, OptionError, "format must be one of text, jsonl, csv, coco, sidecar, html, not 'xml'"),
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
        ({"paths": "taken"}, InputError, "no pictures in this folder"),
        ({"format": "coco", "paths": "a.jpg"}, DataError, "no COCO number"),
        ({"format": "coco", "paths": ["a/7.jpg", "b/7.jpg"]}, DataError, "has the same image id as a/7.jpg"),
        ({"format": "sidecar", "output": None}, OutputError, "picture3.txt would be replaced"),
        ({"format": "sidecar", "output": None, "resume": True}, OutputError, "picture3.txt would be replaced"),
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
    pictures[3].with_suffix(".txt").write_text("mine")
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
    assert caption_files(pictures, tmp_path / "out", model=model).failed == 1
    with pytest.raises(OutputError, match=f"the interrupted run had {named} "):
        caption_files(pictures, tmp_path / "out", model=model, resume=True, **other)
    # How captions are written down does not matter.
    assert caption_files(pictures, tmp_path / "out", format="csv", model=model, resume=True).captioned == 6


def test_another_checkpoint_does_not_go_on(
    model: captioner.Captioner, chinese_checkpoint_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    pictures[3].write_text("broken")
    caption_files(pictures, tmp_path / "out", model=model)
    other = captioner.load(chinese_checkpoint_file, precision="float32")
    with pytest.raises(OutputError, match="the interrupted run had checkpoint "):
        caption_files(pictures, tmp_path / "out", model=other, resume=True)


def test_a_model_that_no_file_holds_captions_into_files_and_goes_on_with_its_own_runs(
    model: captioner.Captioner, tiny_checkpoint_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    made = captioner.Captioner(load_checkpoint(tiny_checkpoint_file))
    assert caption_files(pictures, tmp_path / "whole", model=made).captioned == 7
    lines = [f"{path}\t{made.caption(path)}\n" for path in pictures]
    assert (tmp_path / "whole").read_text() == "".join(lines)
    pictures[3].write_text("broken")
    assert caption_files(pictures, tmp_path / "out", model=made).failed == 1
    for other in (captioner.Captioner(load_checkpoint(tiny_checkpoint_file)), model):
        with pytest.raises(OutputError, match="the interrupted run had checkpoint 'in memory only, "):
            caption_files(pictures, tmp_path / "out", model=other, resume=True)
    assert caption_files(pictures, tmp_path / "out", model=made, resume=True).skipped == 0
    pictures[3].write_bytes(pictures[2].read_bytes())
    assert caption_files(pictures, tmp_path / "out", model=made, resume=True).failed == 0


@pytest.mark.parametrize("stop", range(0, 7, 2))
def test_an_interrupted_call_is_resumed_to_the_same_bytes(
    model: captioner.Captioner, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    given: dict[str, Any] = {"paths": pictures, "format": "jsonl", "model": model, "batch_size": 2}
    caption_files(output=tmp_path / "whole", **given)
    whole = captioner.Captioner.caption_files

    def interrupted(*arguments: Any, **options: Any) -> Iterator[FileResult]:
        for number, result in enumerate(whole(*arguments, **options)):
            if number == stop:
                raise KeyboardInterrupt
            yield result

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(captioner.Captioner, "caption_files", interrupted)
        with pytest.raises(KeyboardInterrupt):
            caption_files(output=tmp_path / "out", progress=Progress(quiet=True, say=said.append), **given)
    assert said == [f"captioner: add resume (--resume) to go on from {tmp_path / 'out.journal'}"]
    assert not (tmp_path / "out").exists()
    summary = caption_files(output=tmp_path / "out", resume=True, **given)
    assert summary == Summary(7 - stop, 0, stop, summary.seconds)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "out.journal").exists()


def test_sidecars_of_the_interrupted_run_are_replaced_but_no_others(
    model: captioner.Captioner, pictures: list[Path]
) -> None:
    good = pictures[3].read_bytes()
    pictures[3].write_text("broken")
    assert caption_files(pictures, format="sidecar", model=model).failed == 1
    pictures[3].write_bytes(good)
    pictures[3].with_suffix(".txt").write_text("mine")
    with pytest.raises(OutputError, match=r"picture3\.txt would be replaced"):
        caption_files(pictures, format="sidecar", model=model, resume=True)
    pictures[3].with_suffix(".txt").unlink()
    assert caption_files(pictures, format="sidecar", model=model, resume=True).failed == 0
    assert pictures[3].with_suffix(".txt").read_text() == f"{model.caption(pictures[3])}\n"
    assert not list(pictures[0].parent.glob(".*"))
