"""An exported model without torch: every command that a light installation promises, where torch cannot be imported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import draw_picture

import captioner
from captioner.cli.main import _COMMANDS

pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow  # exporting takes long

LACKING = ("torch", "torchvision", "streamlit", "matplotlib", "ray", "onnx", "onnxscript")
# A process in which these packages are not installed. It runs commands one after the other, and prints what each did.
PROCESS = f"""
import contextlib, importlib.metadata, io, json, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *given):
        return None if name.partition(".")[0] in {LACKING!r} else self.finder.find_spec(name, *given)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
version = importlib.metadata.version
def version_of(name):
    if name in {LACKING!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = version_of
from captioner.cli.main import main
def run(arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = main(arguments)
        except SystemExit as exit:
            status = exit.code
    return status, out.getvalue(), err.getvalue()
"""


class Done(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


def light(*commands: Sequence[object]) -> list[Done]:
    """Run commands in the current folder, in one process without the packages that are lacking."""
    code = f"{PROCESS}\nprint(json.dumps([run(arguments) for arguments in json.loads(sys.argv[1])]))"
    given = json.dumps([[str(argument) for argument in command] for command in commands])
    done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [Done(*found) for found in json.loads(done.stdout)]


@pytest.fixture(scope="session")
def exported(finder_checkpoint_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported tiny model, which finds pictures, too."""
    return captioner.export_model(finder_checkpoint_file, tmp_path_factory.mktemp("exported") / "tiny", bits=8)


@pytest.fixture
def model(exported: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """The flag that names it, in a folder with pictures, and an empty cache."""
    monkeypatch.chdir(pictures[0].parent)
    monkeypatch.setenv("CAPTIONER_CACHE", str(pictures[0].parent.parent / "cache"))
    return ("--checkpoint", exported)


def test_captions_in_every_format(model: tuple[object, ...]) -> None:
    Path("broken.jpg").write_bytes(b"no picture")
    outputs = ("a.txt", "a.csv", "a.jsonl", "a.html")
    ids = [{"id": number, "file_name": f"picture{number}.jpg"} for number in range(7)]
    Path("ids.json").write_text(json.dumps({"images": ids}))
    coco, first = ("-o", "a.json", "--coco-images", "ids.json"), ("caption", "picture1.jpg", "picture2.jpg")
    text, *files, numbered, sidecar, xmp, again = light(
        ("caption", ".", *model),
        *((*first, "-o", output, *model) for output in outputs),
        (*first, *coco, *model),
        (*first, "-f", "sidecar", *model),
        (*first, "-f", "xmp", *model),
        (*first, "-f", "xmp", *model),
    )
    assert (text.status, text.out.count("\n")) == (1, 7)
    assert "broken.jpg: " in text.err
    assert [done.status for done in (*files, numbered, sidecar, xmp)] == [0] * 7
    captions = dict(line.split("\t") for line in Path("a.txt").read_text().splitlines())
    assert captions == {path: caption for path, caption in _rows(text.out).items() if path in captions}
    rows = map(json.loads, Path("a.jsonl").read_text().splitlines())
    assert {row["path"]: row["caption"] for row in rows} == captions
    assert Path("picture1.txt").read_text() == captions["picture1.jpg"] + "\n"
    assert captions["picture1.jpg"] in Path("picture1.jpg.xmp").read_text()
    assert "2 pictures have captions already" in again.err


def _rows(text: str) -> dict[str, str]:
    return {path.removeprefix("./"): caption for path, caption in (line.split("\t") for line in text.splitlines())}


def test_a_run_goes_on_from_its_journal(model: tuple[object, ...]) -> None:
    names = [f"picture{number}.jpg" for number in (*range(7), 9)]
    run = ("caption", *names, "--batch-size", 2, *model, "-o")
    (stopped,) = light((*run, "a.html"))  # a picture is missing, so the journal stays
    draw_picture(9).save("picture9.jpg")
    resumed, whole = light((*run, "a.html", "--resume", "--overwrite"), (*run, "b.html"))
    assert (stopped.status, resumed.status, whole.status) == (1, 0, 0)
    assert "captioned before: 6 of 8 pictures" in resumed.err
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_finding_knows_what_was_encoded_before(model: tuple[object, ...]) -> None:
    Path("copy.jpg").write_bytes(Path("picture3.jpg").read_bytes())
    first, second, like, same = light(
        ("find", "a dog", ".", *model),
        ("find", "a dog", ".", *model),
        ("find", "--like", "picture3.jpg", ".", *model),
        ("find", "--duplicates", ".", *model),
    )
    assert [done.status for done in (first, second, like, same)] == [0] * 4
    assert first.out.count("\n") == 8
    assert second == (0, first.out, "")
    assert like.out.startswith(("./copy.jpg", "copy.jpg"))
    assert "copy.jpg" in same.out


def test_evaluation_says_what_computed(model: tuple[object, ...]) -> None:
    Path("captions.token.txt").write_text(
        "".join(f"picture{n}.jpg#{m}\tA dog runs\n" for n in range(7) for m in (0, 1))
    )
    Path("written.csv").write_text("path,caption\n" + "".join(f"picture{n}.jpg,a dog\n" for n in range(7)))
    people = ("evaluate", "--captions", "captions.token.txt")
    given, written, retrieval = light(
        (*people, "--predictions", "written.csv", "--json", "a.json", "--report", "a.html"),
        (*people, "--images", ".", *model),
        (*people, "--images", ".", "--retrieval", "--report", "b.html", *model),
    )
    assert [done.status for done in (given, written, retrieval)] == [0] * 3, (given, written, retrieval)
    assert json.loads(Path("a.json").read_text())["images"] == 7
    for done in (written, retrieval):
        assert "|engine:onnx|" in done.out
        assert "|onnxruntime:" in done.out
        assert "torch:" not in done.out


def test_alternative_text_and_captions_that_a_person_wrote(model: tuple[object, ...]) -> None:
    Path("a.md").write_text("![](picture0.jpg)\n")
    Path("b.html").write_text("<img src=picture1.jpg>")
    Path("edited.csv").write_text("path,caption\npicture2.jpg,A dog that I know\n")
    listed, filled, applied, read = light(
        ("alt", "."),
        ("alt", ".", "--write", "--min-confidence", 0, *model),
        ("apply", "edited.csv", "-f", "xmp"),
        ("read", "."),
    )
    assert [done.status for done in (listed, filled, applied, read)] == [0] * 4
    assert listed.out.count("no alternative text") == 2
    assert Path("a.md").read_text() != "![](picture0.jpg)\n"
    assert 'alt="' in Path("b.html").read_text()
    assert read.out == "picture2.jpg\tA dog that I know\n" or read.out == "./picture2.jpg\tA dog that I know\n"


def test_sentences_alone(model: tuple[object, ...]) -> None:
    sampled, scored, listed, shapes, checked = light(
        ("sample", "--num-captions", 3, *model),
        ("score", "picture0.jpg", "a dog", "a cat", *model),
        ("models",),
        ("data", "make-shapes", "shapes"),
        ("data", "check", "--captions", "shapes/captions.token.txt", "--images", "shapes/images"),
    )
    assert [done.status for done in (sampled, scored, listed, shapes)] == [0] * 4
    assert sampled.out.count("\n") == 3
    assert {line.split("\t")[1] for line in scored.out.splitlines()} == {"a dog", "a cat"}
    assert listed.out.startswith("flickr8k")
    assert checked.status == 0, checked.err


def test_what_needs_torch_says_so_in_one_line(model: tuple[object, ...], tiny_checkpoint_file: Path) -> None:
    Path("captions.token.txt").write_text("".join(f"picture{n}.jpg#0\tA dog runs\n" for n in range(7)))
    torch, page = light(("train", "--captions", "captions.token.txt", "--images", ".", "--output", "run"), ("app",))
    found = light(
        ("caption", "picture0.jpg", "--checkpoint", tiny_checkpoint_file),
        ("export", "--output", "folder", "--checkpoint", tiny_checkpoint_file),
        ("cluster", ".", "--output", "folder"),
        ("caption", "picture0.jpg", *model, "--engine", "torch"),
    )
    for done in (torch, page, *found):
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done.err
        assert done.err.startswith("captioner: error: ")
    assert "needs torch, which is not installed: pip install captioner" in torch.err
    assert "Streamlit" in page.err
    assert "this checkpoint needs torch, which is not installed" in found[0].err


def test_a_folder_that_is_not_whole_is_refused(exported: Path, pictures: list[Path], tmp_path: Path) -> None:
    shutil.copytree(exported, changed := tmp_path / "changed")
    with (changed / "step.onnx").open("ab") as file:
        file.write(b"!")
    shutil.copytree(exported, halved := tmp_path / "halved")
    (halved / "start.onnx").unlink()
    for folder, reason in ((changed, "step.onnx: is not the file that was exported"), (halved, "a file is missing")):
        (done,) = light(("caption", pictures[0], "--checkpoint", folder))
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
        assert reason in done.err


def test_features_do_not_depend_on_the_pictures_beside_them(exported: Path, pictures: list[Path]) -> None:
    loaded = captioner.load(exported)
    together = loaded.encode(pictures)
    assert together.shape == (7, loaded.feature_size)
    assert np.array_equal(together, np.concatenate([loaded.encode([path]) for path in pictures]))
    assert loaded.encode([]).shape == (0, loaded.feature_size)


def test_python_says_it_as_an_error_of_captioner(model: tuple[object, ...]) -> None:
    code = f"""{PROCESS}
import captioner
model = captioner.load({str(model[1])!r})
print(model.engine, model.caption("picture0.jpg").text)
try:
    model.explain("picture0.jpg")
except captioner.DeviceError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    caption, explanation = done.stdout.splitlines()
    assert caption.startswith("onnx ")
    assert "cannot show how a caption came about" in explanation


def test_help_imports_nothing_that_takes_long(tmp_path: Path) -> None:
    code = f"""{PROCESS}
for arguments in [[], *([name] for name in {_COMMANDS!r})]:
    assert run([*arguments, "--help"])[0] == 0
assert not {{"numpy", "PIL", "onnxruntime", "lxml", "tqdm", "nltk"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def server(model: tuple[object, ...]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of the exported model, and its address."""
    pytest.importorskip("fastapi")
    code = f"{PROCESS}\nsys.exit(main(sys.argv[1:]))"
    flags = ("--port", "0", "--folder", ".", *map(str, model))
    started = [sys.executable, "-c", code, "serve", *flags]
    with subprocess.Popen(started, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            yield process, process.stderr.readline().split("serving at ")[1].split(",")[0]
        finally:
            process.kill()


def test_a_server_answers_and_ends(server: tuple[subprocess.Popen[str], str]) -> None:
    import httpx

    process, address = server
    with httpx.Client(base_url=address, timeout=120) as client:
        data = Path("picture0.jpg").read_bytes()
        answer = client.post("/caption", json={"paths": ["picture0.jpg"]}).json()
        picture = {"type": "image_url", "image_url": {"url": _address_of(data)}}
        body = {"model": "captioner", "messages": [{"role": "user", "content": [picture]}]}
        chat = client.post("/v1/chat/completions", json=body).json()
        found = client.post("/find", json={"text": "a dog"})
    assert chat["choices"][0]["message"]["content"] == answer["results"][0]["caption"]
    assert found.status_code == 200, found.text
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    assert process.stderr
    assert "3 requests answered" in process.stderr.read()


def _address_of(data: bytes) -> str:
    import base64

    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_watching_captions_what_is_there(model: tuple[object, ...]) -> None:
    code = f"{PROCESS}\nsys.exit(main(sys.argv[1:]))"
    started = [sys.executable, "-c", code, "watch", ".", "-o", "a.csv", "--settle", "0", "--poll", "0.1"]
    with subprocess.Popen([*started, *map(str, model)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = iter(process.stderr.readline, "")
        assert any("7 captioned" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert Path("a.csv").read_text().count("\n") == 8
