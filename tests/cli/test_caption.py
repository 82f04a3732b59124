"""The caption command, in real processes."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from conftest import draw_picture

import captioner
from captioner.cli.main import main
from captioner.options import DecodeOptions, option_specs

Done: TypeAlias = "subprocess.CompletedProcess[str]"
Run: TypeAlias = Callable[..., Done]
Command: TypeAlias = Callable[..., tuple[int, str, str]]


def run(*arguments: object, **more: Any) -> Done:
    command = [sys.executable, "-m", "captioner", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **more)


@pytest.fixture
def caption(command: Command, tiny_checkpoint_file: Path) -> Run:
    """`captioner caption ... --checkpoint TINY`, in this process."""

    def run_here(*arguments: object) -> Done:
        status, output, errors = command("caption", *arguments, "--checkpoint", tiny_checkpoint_file)
        return subprocess.CompletedProcess([], status, output, errors)

    return run_here


def test_one_line_a_picture_the_same_as_in_python(pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    done = run("caption", pictures[0].parent, "--checkpoint", tiny_checkpoint_file)
    expected = captioner.load(tiny_checkpoint_file).caption_batch(pictures)
    assert done.stdout.splitlines() == [f"{p}\t{c.text}" for p, c in zip(pictures, expected, strict=True)]
    assert done.returncode == 0


def test_a_bad_picture_is_named_and_the_others_are_captioned(caption: Run, pictures: list[Path]) -> None:
    pictures[2].write_text("not a picture")
    pictures[4].write_bytes(pictures[4].read_bytes()[:200])
    done = caption(*pictures, pictures[0].parent / "missing.jpg")
    assert done.returncode == 1
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [str(pictures[i]) for i in (0, 1, 3, 5, 6)]
    failures = [line for line in done.stderr.splitlines() if ".jpg: " in line]
    assert len(failures) == 3
    assert "5 captioned, 3 failed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty"], "no pictures in this folder"),
        (["*.png"], "no file matches"),
        (["a.jpg", "--checkpoint", "none.safetensors"], "no such checkpoint"),
        (["a.jpg", "--checkpoint", "text.txt"], "text.txt: "),
        (["a.jpg", "--temperature", "0.5"], "temperature has no effect with strategy beam"),
        (["a.jpg", "--strategy", "sample", "--top-p", "2"], "top_p must be at most 1"),
        (["a.jpg", "--num-captions", "9"], "set beam_size (--beam-size) to at least 9"),
        (["a.jpg", "--resume"], "resume (--resume) needs output (--output FILE)"),
        (["a.jpg", ""], "one of the paths is empty"),
        (["a.jpg", "--prompt", "a dgo"], "'dgo' (did you mean 'dog'?)"),
        (["a.jpg", "--prompt", "a dgo", "--format", "csv"], "'dgo' (did you mean 'dog'?)"),
        (["a.jpg", "--prompt", "a dog", "--max-length", "2"], "set max_length (--max-length) to at least 3"),
        (["a.jpg", "--prefix", "x"], "prefix (--prefix) goes with the format sidecar only"),
        (["a.jpg", "--overwrite"], "overwrite (--overwrite) needs output (--output FILE)"),
        (["a.jpg", "--extension", ".caption"], "extension (--extension) goes with the format sidecar only"),
        (["a.jpg", "--output", "captions.xlsx"], "captioner does not write .xlsx: give a .csv"),
        (["a.jpg", "--output", "nowhere/captions.csv"], "nowhere/captions.csv: cannot be written"),
        (["a.jpg", "--output", "text.txt"], "text.txt: exists, and captions cannot be added to it"),
        (["https://example.com/a.jpg"], "is an address, and captioner fetches nothing"),
        (["a.jpg", "--coco-images", "x"], "coco_images (--coco-images) goes with the format coco only"),
        (["a.jpg", "--output", "s3://bucket/captions"], "only `captioner cluster` writes to addresses"),
        (["a.jpg", "--format", "parquet"], "invalid choice"),
        (["a.jpg", "--format", "sidecar", "--output", "x"], "leave out output (--output)"),
        (["a.jpg", "--format", "coco"], "--coco-images"),
        (["a.jpg", "--output", "empty"], "is a folder"),
        (["a.jpg", "--strategy", "wild"], "invalid choice"),
        (["a.jpg", "--batch-size", "0"], "batch_size must be at least 1, not 0"),
        (["a.jpg", "--device", "abacus"], "abacus"),
        ([], "PATH"),
    ],
)
def test_wrong_usage_gets_one_clear_line_and_status_2(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_checkpoint_file: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    draw_picture(0).save(tmp_path / "a.jpg")
    given = arguments if "--checkpoint" in arguments else [*arguments, "--checkpoint", str(tiny_checkpoint_file)]
    status, output, errors = command("caption", *given)
    assert status == 2
    assert message in errors.splitlines()[-1]
    assert output == ""


@pytest.mark.parametrize("more", [[], ["--workers", "2", "-o", "captions"]])
def test_the_runner_ray_is_a_command_today(command: Command, more: list[str]) -> None:
    status, output, errors = command("caption", "a.jpg", *more, "--runner", "ray")
    assert (status, output) == (2, "")
    assert errors == ("captioner: error: the runner ray is now a command: captioner cluster PATH... --output DIR\n")


def test_a_list_on_stdin(pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    done = run("caption", "-", "--checkpoint", tiny_checkpoint_file, input=f"{pictures[3]}\n{pictures[1]}\n")
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [str(pictures[3]), str(pictures[1])]


def test_a_picture_on_stdin(pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    with pictures[3].open("rb") as stdin:
        done = run("caption", "-", "--checkpoint", tiny_checkpoint_file, stdin=stdin)
    assert done.stdout == f"-\t{captioner.load(tiny_checkpoint_file).caption(pictures[3])}\n"
    assert done.stderr == ""


def test_the_same_seed_gives_the_same_samples_another_seed_others(caption: Run, pictures: list[Path]) -> None:
    def sample(seed: int, *more: object) -> str:
        return caption(*pictures, "--strategy", "sample", "--seed", seed, *more).stdout

    first = sample(1)
    assert first == sample(1, "--batch-size", 2)
    assert first != sample(2)


def test_every_format_has_one_row_a_picture(caption: Run, pictures: list[Path], tmp_path: Path) -> None:
    for index, path in enumerate(pictures):
        pictures[index] = path.rename(path.with_name(f"{index}.jpg"))
    folder = pictures[0].parent
    written = {}
    for name in ("text", "jsonl", "csv", "coco", "html"):
        assert caption(folder, "--format", name, "--output", tmp_path / name).returncode == 0
        written[name] = (tmp_path / name).read_text()
    assert written["coco"] == caption(folder, "--format", "coco").stdout
    assert caption(folder, "--format", "sidecar", "--prefix", "photo: ").returncode == 0
    captions = [line.split("\t")[1] for line in written["text"].splitlines()]
    assert len(captions) == len(pictures)
    assert [json.loads(line)["caption"] for line in written["jsonl"].splitlines()] == captions
    assert [row["caption"] for row in csv.DictReader(written["csv"].splitlines())] == captions
    assert [(row["image_id"], row["caption"]) for row in json.loads(written["coco"])] == list(enumerate(captions))
    assert re.findall(r"<figcaption><p>(.*?)</p>", written["html"]) == captions
    assert [path.with_suffix(".txt").read_text() for path in pictures] == [f"photo: {c}\n" for c in captions]
    assert not list(tmp_path.rglob("*.journal"))


def test_sidecars_are_not_overwritten_unless_asked(caption: Run, pictures: list[Path]) -> None:
    sidecar = pictures[3].with_suffix(".txt")
    sidecar.write_text("mine")
    plan = caption(pictures[0].parent, "--format", "sidecar", "--dry-run")
    assert len(plan.stdout.splitlines()) == 6
    assert not pictures[0].with_suffix(".txt").exists()
    done = caption(pictures[0].parent, "--format", "sidecar")
    assert (done.returncode, sidecar.read_text()) == (0, "mine")
    assert "1 of 7 pictures has captions already: kept" in done.stderr
    assert pictures[0].with_suffix(".txt").exists()
    assert caption(pictures[0].parent, "--format", "sidecar", "--overwrite").returncode == 0
    assert sidecar.read_text() != "mine"


def test_resume_tries_failed_pictures_again(caption: Run, pictures: list[Path], tmp_path: Path) -> None:
    good = pictures[2].read_bytes()
    pictures[2].write_text("broken for now")
    output = tmp_path / "out.jsonl"
    command = (pictures[0].parent, "--overwrite", "--output", output, "--batch-size", 2)
    done = caption(*command)
    assert done.returncode == 1
    assert "--resume --overwrite" in done.stderr.splitlines()[-1]
    assert len(output.read_text().splitlines()) == 6
    pictures[2].write_bytes(good)
    assert caption(*command).returncode == 2  # the journal of the first run is in the way
    again = caption(*command, "--resume")
    assert again.returncode == 0
    assert "captioned before: 5 of 7 pictures" in again.stderr
    assert [json.loads(line)["path"] for line in output.read_text().splitlines()] == [str(p) for p in pictures]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["jsonl", "html", "sidecar"])
def test_killed_three_times_and_resumed_gives_the_same_bytes(
    tmp_path: Path, tiny_checkpoint_file: Path, format: str
) -> None:
    def pictures(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for index in range(150):
            draw_picture(index).save(folder / f"{index:03}.jpg")
        (folder / "077.jpg").write_text("broken")
        return folder

    def command(folder: Path, *more: str) -> list[str]:
        target = [] if format == "sidecar" else ["--output", "../out"]
        fixed = ["--checkpoint", str(tiny_checkpoint_file), "--batch-size", "4", "--num-captions", "2"]
        return [sys.executable, "-m", "captioner", "caption", ".", "--format", format, *target, *fixed, *more]

    def result(folder: Path) -> list[tuple[str, bytes]]:
        if format == "sidecar":
            return [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.txt"))]
        return [("out", (tmp_path / "out").read_bytes())]

    whole = pictures("whole")
    assert subprocess.run(command(whole), cwd=whole, capture_output=True, check=False).returncode == 1
    expected = result(whole)
    (tmp_path / "out.journal").unlink(missing_ok=True)
    (tmp_path / "out").unlink(missing_ok=True)

    killed = pictures("killed")
    journal = killed / ".captioner.journal" if format == "sidecar" else tmp_path / "out.journal"
    for kill in range(3):
        before = journal.stat().st_size if journal.exists() else 0
        process = subprocess.Popen(
            command(killed, *(["--resume"] if kill else [])), cwd=killed, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and (not journal.exists() or journal.stat().st_size < before + 9000):
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = subprocess.run(command(killed, "--resume"), cwd=killed, capture_output=True, text=True, check=False)
    assert last.returncode == 1
    assert "captioned before: " in last.stderr
    assert result(killed) == expected


def _main(arguments: list[str]) -> None:
    """The command line in a process of `multiprocessing`, quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.exit(main(arguments))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no such kills")
def test_kills_at_random_moments_lose_no_caption(
    tmp_path: Path, tiny_checkpoint_file: Path, pytestconfig: pytest.Config, forkserver: ForkServerContext
) -> None:
    folder, output, journal = tmp_path / "pictures", tmp_path / "out", tmp_path / "out.journal"
    folder.mkdir()
    for index in range(300):
        draw_picture(index).save(folder / f"{index:03}.jpg")
    fixed = ["--checkpoint", str(tiny_checkpoint_file), "--batch-size", "2", "--format", "jsonl", "--overwrite"]
    command = ["caption", str(folder), *fixed, "--output", str(output)]
    assert main(command) == 0
    expected = output.read_bytes()
    wanted, rng = pytestconfig.getoption("kills"), random.Random(0)
    kills = torn = finished = 0
    while kills < wanted or not finished:
        before = journal.read_bytes() if journal.exists() else b""
        kept = before[: before.rfind(b"\n") + 1]
        torn += kept != before
        more = rng.randrange(2 * len(expected) // 5) if kills < wanted else 10**9
        process = forkserver.Process(target=_main, args=([*command, *(["--resume"] if before else [])],))
        process.start()
        while process.is_alive() and (not journal.exists() or journal.stat().st_size < len(before) + more):
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        process.kill()  # in vain where it is over
        process.join()
        if process.exitcode != 0:
            assert process.exitcode == -signal.SIGKILL
            kills += 1
            assert not journal.exists() or journal.read_bytes().startswith(kept), "what was saved is lost"
        else:
            finished += 1
        assert output.read_bytes() == expected
    print(
        f"\ncaptioning: {kills} kills, {torn} left half a line, {finished} runs finished; nothing lost, the same bytes"
    )


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, tiny_checkpoint_file: Path) -> None:
    for index in range(300):
        draw_picture(index).save(tmp_path / f"{index}.png")
    journal = tmp_path / "out.journal"
    fixed = ["--checkpoint", str(tiny_checkpoint_file), "--output", "out", "--batch-size", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "captioner", "caption", ".", *fixed],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and what they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 3000):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert journal.exists()


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, tiny_checkpoint_file: Path) -> None:
    for index in range(40):
        draw_picture(index).save(tmp_path / f"{index}.png")
    command = f"{sys.executable} -m captioner caption . --checkpoint {tiny_checkpoint_file} --batch-size 1 | head -n 1"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_a_prompt_begins_every_caption(caption: Run, pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    done = caption(*pictures, "--prompt", "the man")
    expected = captioner.load(tiny_checkpoint_file).caption_batch(pictures, prompt="the man")
    assert done.stdout.splitlines() == [f"{p}\t{c.text}" for p, c in zip(pictures, expected, strict=True)]
    assert all("\tThe man" in line for line in done.stdout.splitlines())


def test_a_run_is_resumed_with_its_own_prompt_only(caption: Run, pictures: list[Path], tmp_path: Path) -> None:
    picture = pictures[3].read_bytes()
    pictures[3].write_bytes(b"")
    output = ["--output", tmp_path / "out.txt", "--overwrite"]
    assert caption(*pictures, *output, "--prompt", "the man").returncode == 1
    pictures[3].write_bytes(picture)
    for other in ([], ["--prompt", "a man"]):
        done = caption(*pictures, *output, *other, "--resume")
        assert done.returncode == 2
        assert "the interrupted run had prompt 'the man'" in done.stderr
    assert caption(*pictures, *output, "--prompt", "the man", "--resume").returncode == 0
    assert (tmp_path / "out.txt").read_text().count("\tThe man") == 7


def test_a_prompt_that_is_refused_leaves_nothing(caption: Run, pictures: list[Path], tmp_path: Path) -> None:
    done = caption(*pictures, "--output", tmp_path / "out.txt", "--prompt", "zebra")
    assert done.returncode == 2
    assert "'zebra'" in done.stderr
    assert list(tmp_path.iterdir()) == [pictures[0].parent]


def test_score_ranks_sentences(pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    model = captioner.load(tiny_checkpoint_file)
    own = model.caption(pictures[0]).text
    done = run("score", pictures[0], "zebra zebra zebra", own, "--words", "--checkpoint", tiny_checkpoint_file)
    ranked = [line.split("\t") for line in done.stdout.splitlines() if not line.startswith("\t")]
    assert [sentence for _, sentence in ranked] == [own, "zebra zebra zebra"]
    assert float(ranked[0][0]) == pytest.approx(model.score(pictures[0], own).logprob, abs=0.006)
    assert "'zebra zebra zebra' ranks last: the model does not know 'zebra'" in done.stderr


def test_help_is_instant_and_fits_on_a_screen() -> None:
    started = time.monotonic()
    done = run("caption", "--help", env={**os.environ, "COLUMNS": "120"})
    assert time.monotonic() - started < 1.0, "help imports something heavy"
    assert len(done.stdout.splitlines()) <= 60
    for spec in option_specs(DecodeOptions):
        assert spec.flag in done.stdout


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import captioner, captioner.cli.main, sys; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("arguments", [["--dry-run"], ["-o", "done.txt"], ["-o", "nowhere/out.csv"], ["-o", "a.xlsx"]])
def test_what_needs_no_model_does_not_wait_for_torch(pictures: list[Path], arguments: list[str]) -> None:
    folder = pictures[0].parent
    (folder / "done.txt").write_text("".join(f"{path.name}\tmine\n" for path in pictures))
    code = "import sys; from captioner.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "caption", ".", *arguments]
    assert subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 0


def test_a_wrong_checkpoint_needs_no_torch(
    pictures: list[Path], command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*arguments: object) -> None:
        pytest.fail("torch was needed")

    monkeypatch.setattr("captioner.inference.captioner.load", never)
    (tmp_path / "best.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "empty").mkdir()
    status, _, err = command("demo", str(tmp_path / "empty"))
    assert (status, "no pictures in this folder" in err) == (2, True)
    for name, message in (("none.pt", "no such checkpoint"), (str(tmp_path / "best.pt"), "best.pt: ")):
        status, _, err = command("caption", str(pictures[0]), "--checkpoint", name)
        assert status == 2
        assert message in err


def test_score_reads_the_picture_before_it_loads_the_model(
    pictures: list[Path], tiny_checkpoint_file: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A picture may also come on stdin."""
    given = ("a dog runs", "--checkpoint", str(tiny_checkpoint_file))
    expected = command("score", str(pictures[0]), *given)
    assert expected[0] == 0
    with pictures[0].open() as stdin, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", stdin)
        assert command("score", "-", *given) == expected
    monkeypatch.setattr("captioner.cli.score.load_model", lambda args: pytest.fail("a model was loaded"))
    status, _, err = command("score", str(tmp_path / "none.jpg"), *given)
    assert status == 2
    assert "none.jpg: no such file" in err


def test_train_looks_for_its_files_before_it_needs_torch(
    pictures: list[Path], command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("captioner.training.run.train", lambda **given: pytest.fail("torch was needed"))
    (tmp_path / "captions.csv").write_text("image,caption\npicture0.jpg,a dog\n")
    good = {"--captions": tmp_path / "captions.csv", "--images": pictures[0].parent, "--output": tmp_path / "run"}
    for name in ("--captions", "--images", "--train-list", "--val-list", "--text"):
        given = {**good, name: tmp_path / "none"}
        status, _, err = command("train", *(str(part) for pair in given.items() for part in pair))
        assert status == 2
        assert err == f"captioner: error: {tmp_path / 'none'}: no such file or folder\n"


def test_without_a_command_the_help_lists_them(command: Command) -> None:
    status, out, err = command()
    assert (status, out) == (2, "")
    assert err.startswith("usage: captioner")
    assert "write a sentence for each picture" in err
