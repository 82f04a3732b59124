"""The page that needs no server: its files, and what it does in a real browser, compared with Python."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
import static_page
from conftest import draw_picture
from PIL import Image
from selenium.webdriver.common.keys import Keys
from static_page import Card, Folder, PageVisitor, served

import captioner
from captioner.errors import DeviceError, OutputError
from captioner.export import web
from captioner.export.web import RUNTIME, export_web
from captioner.inference.captioner import Captioner
from captioner.inference.results import Caption
from captioner.network.header import find_checkpoint
from captioner.options import DecodeOptions
from captioner.pictures.load import load_image
from captioner.pictures.sample_pictures import SAMPLES

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from captioner.export.weights import coarser  # noqa: E402  # it needs onnx

ROOT = Path(__file__).parent.parent.parent
MOST = 15_000_000  # bytes of a page
WORDS = {"": "sure", "not sure": "not sure", "not a kind of picture that the model knows": "unfamiliar"}


# Without a browser: what is in the folder.


@pytest.fixture
def fake_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that passes for onnxruntime-web, and models that take no time to export."""
    folder = tmp_path / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    expected = {}
    for name, (there, _) in web._OF_RUNTIME.items():
        (folder / there).write_text(name)
        expected[name] = (there, hashlib.sha256(name.encode()).hexdigest())
    monkeypatch.setattr(web, "_OF_RUNTIME", expected)
    monkeypatch.setattr(
        web, "_model", lambda checkpoint: {"step.onnx": str(checkpoint).encode(), "captioner.json": b"{}"}
    )
    return folder


def listed(page: Path) -> tuple[str, dict[str, int]]:
    """What the service worker knows: the version, and the sizes of files."""
    first, second, _ = (page / "sw.js").read_text().split("\n", 2)
    version, files = (re.fullmatch(r"const \w+ = (.*);", line) for line in (first, second))
    assert version
    assert files
    return json.loads(version[1]), json.loads(files[1])


def test_the_service_worker_knows_every_file_and_its_size(fake_runtime: Path, tmp_path: Path) -> None:
    page = export_web(None, tmp_path / "web", fake_runtime)
    _, files = listed(page)
    there = {path.name: path.stat().st_size for path in page.iterdir() if path.name != "sw.js"}
    there["./"] = there.pop("index.html")
    assert files == there


def test_every_file_that_the_page_names_is_there(fake_runtime: Path, tmp_path: Path) -> None:
    page = export_web(None, tmp_path / "web", fake_runtime)
    for path in page.glob("*.*"):
        if path.suffix not in (".js", ".html", ".webmanifest") or path.name == "onnxruntime.js":
            continue
        text = path.read_text()
        named = re.findall(r'(?:from|import\() ?"\./([\w.]+)"|(?:src|href)="([\w.]+)"|"src": "([\w.]+)"', text)
        named += re.findall(r'(?:bound|register)\("([\w.]+)"', text)
        for name in filter(None, ("".join(each) for each in named)):
            assert (page / name).is_file(), f"{path.name} names {name}"


def test_the_version_changes_with_the_model_and_with_nothing_else(fake_runtime: Path, tmp_path: Path) -> None:
    page = export_web("one", tmp_path / "web", fake_runtime)
    before = {path.name: path.read_bytes() for path in page.iterdir()}
    export_web("one", page, fake_runtime.parent)  # the folder of the package will do, too
    assert {path.name: path.read_bytes() for path in page.iterdir()} == before
    version, _ = listed(page)
    export_web("two", page, fake_runtime)
    assert listed(page)[0] != version
    assert gzip.decompress((page / "step.onnx.gz").read_bytes()) == b"two"


def test_what_else_is_in_the_folder_is_left_alone(fake_runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else than a page of captioner"):
        export_web(None, tmp_path / "web", fake_runtime)
    with pytest.raises(OutputError, match="name another folder"):
        export_web(None, tmp_path / "web" / "diary.txt", fake_runtime)


@pytest.mark.parametrize(
    "worker",
    [
        "self.addEventListener('fetch', () => {});",
        'const VERSION = "v1";\nconst CACHE = "site";\n',
        'const VERSION = "v1";\nconst FILES = ["/"];\n',
        'const VERSION = "0123456789abcdef";\nconst FILES = {urls: []};\n',
        None,
    ],
)
def test_the_service_worker_of_another_website_is_no_page(
    fake_runtime: Path, tmp_path: Path, worker: str | None
) -> None:
    site = tmp_path / "web"
    site.mkdir()
    (site / "index.html").write_text("mine")
    if worker is None:
        (site / "sw.js").mkdir()
    else:
        (site / "sw.js").write_text(worker)
    with pytest.raises(OutputError, match="holds something else than a page of captioner: name another folder"):
        export_web(None, site, fake_runtime)
    assert (site / "index.html").read_text() == "mine"
    assert worker is None or (site / "sw.js").read_text() == worker
    assert len(list(site.iterdir())) == 2


def test_files_beside_a_page_are_never_replaced(
    fake_runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = export_web("one", tmp_path / "web", fake_runtime)
    for name in ("diary.txt", "more.onnx.gz"):
        (page / name).write_text("mine")
    export_web("two", page, fake_runtime)
    before = {path.name: path.read_bytes() for path in page.iterdir()}
    assert before["diary.txt"] == before["more.onnx.gz"] == b"mine"
    monkeypatch.setattr(web, "_model", lambda checkpoint: {"step.onnx": b"three", "more.onnx": b"three"})
    with pytest.raises(OutputError, match=r"more\.onnx\.gz: is no file of the page and would be replaced"):
        export_web("three", page, fake_runtime)
    assert {path.name: path.read_bytes() for path in page.iterdir()} == before


@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "a page"])
def test_an_export_that_broke_off_goes_on(
    fake_runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    page, whole = tmp_path / "web", export_web("two", tmp_path / "whole", fake_runtime)
    if there:
        export_web("one", page, fake_runtime)
    with monkeypatch.context() as broken:
        write = web.write

        def full(path: Path, content: bytes) -> None:
            if path.name == "step.onnx.gz":
                raise OSError(28, "No space left on device", str(path))
            write(path, content)

        broken.setattr(web, "write", full)
        with pytest.raises(OSError, match="No space left"):
            export_web("two", page, fake_runtime)
    # Visitors keep the old version: their browsers do not take a service worker that throws.
    assert (page / "sw.js").read_text().split("\n", 2)[2].startswith("throw new Error(")
    export_web("two", page, fake_runtime)
    assert {path.name: path.read_bytes() for path in page.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_a_missing_or_another_runtime_is_named_with_what_gets_it(fake_runtime: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=rf"nowhere.*is missing.*npm install onnxruntime-web@{RUNTIME}"):
        export_web(None, tmp_path / "web", tmp_path / "nowhere")
    (fake_runtime / "ort.wasm.bundle.min.mjs").write_text("of another version")
    with pytest.raises(DeviceError, match=rf"mjs: is not that of onnxruntime-web {RUNTIME}: npm install"):
        export_web(None, tmp_path / "web", fake_runtime)
    assert not (tmp_path / "web").exists()


def test_the_command_takes_options_of_one_kind_of_export(
    command: Callable[..., tuple[int, str, str]], fake_runtime: Path, tmp_path: Path
) -> None:
    status, printed, said = command("export", "--web", tmp_path / "web", "--runtime", fake_runtime)
    assert (status, printed) == (0, f"{tmp_path / 'web'}\n")
    assert f"http.server --directory {tmp_path / 'web'}" in said
    for wrong, why in (
        (("--web", tmp_path / "web", "--bits", 16), "bits has no effect on a page"),
        (("--web", tmp_path / "web", "--images", tmp_path), "images has no effect on a page"),
        (("--output", tmp_path / "new", "--runtime", fake_runtime), "the runtime is for a page"),
        (("--output", tmp_path / "new", "--web", tmp_path / "web"), "not allowed with argument"),
        ((), "one of the arguments --output --web is required"),
    ):
        status, _, said = command("export", *wrong)
        assert (status, why in said) == (2, True), said


def test_coarser_weights_take_fewer_values_and_stay_near() -> None:
    weights = np.arange(-127, 128, dtype=np.int8).reshape(1, -1)
    scale = np.full((1, 1), 0.5, dtype=np.float32)
    tensors = [
        onnx.numpy_helper.from_array(values, f"{layer}.weight.{part}")
        for layer in ("output", "h0")
        for part, values in (("kept", weights), ("scale", scale))
    ]
    graph = onnx.helper.make_graph([], "weights", [], [], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 10
    found = {each.name: onnx.numpy_helper.to_array(each) for each in coarser(model, {"output": 6}).graph.initializer}
    assert found["h0.weight.kept"].tolist() == weights.tolist()
    assert len(np.unique(found["output.weight.kept"])) == 65
    assert found["output.weight.kept"].dtype == np.int8
    rounded = found["output.weight.kept"] * found["output.weight.scale"]
    assert np.abs(rounded - weights * scale).max() == 1.0  # half of a level, which is four of the old ones


# In a browser. All of it is slow: exporting takes seconds, and so does a browser.


@pytest.fixture(scope="module")
def runtime() -> Path:
    """onnxruntime-web, as `make web` gets it."""
    missing = browser.INSTALL if browser.chromium() is None else "install npm" if not shutil.which("npm") else ""
    if missing:
        if os.environ.get("CI"):
            pytest.fail(f"the page cannot be tested: {missing}")
        pytest.skip(missing)
    package = f"build/onnxruntime-web-{RUNTIME}"
    subprocess.run(["make", "--silent", package], cwd=ROOT, check=True, timeout=300)
    return ROOT / package


@dataclass(frozen=True)
class Page:
    """A page and its address."""

    folder: Path
    address: str


@pytest.fixture(scope="module")
def shipped(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of the shipped checkpoint."""
    yield from made(find_checkpoint(), runtime, tmp_path_factory.mktemp("shipped") / "web")


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint_file: Path, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of a tiny checkpoint with random weights."""
    yield from made(tiny_checkpoint_file, runtime, tmp_path_factory.mktemp("tiny") / "web")


def made(checkpoint: Path, runtime: Path, folder: Path) -> Iterator[Page]:
    export_web(checkpoint, folder, runtime)
    with served(folder) as server:
        yield Page(folder, server.address)


@pytest.fixture(scope="module")
def window(shipped: Page) -> Iterator[PageVisitor]:
    """One window, used again, for it takes seconds to open and to load the model."""
    with PageVisitor(shipped.address) as visitor:
        visitor.open()
        yield visitor


@pytest.fixture
def visitor(window: PageVisitor) -> PageVisitor:
    """A window without pictures."""
    window.driver.execute_script("document.querySelector('#clear').click()")
    assert not window.cards()
    return window


def model_of(page: Page) -> Captioner:
    """The model of a page in Python, computed by onnxruntime: the same networks, decoded without a browser."""
    if not (folder := page.folder.with_name("model")).exists():
        folder.mkdir()
        for name in ("encoder.onnx", "start.onnx", "step.onnx", "captioner.json"):
            (folder / name).write_bytes(gzip.decompress((page.folder / f"{name}.gz").read_bytes()))
    return captioner.load(folder)


def in_python(page: Page, files: list[Path]) -> list[Caption]:
    """The captions that Python gives with the networks of a page; each with its alternatives."""
    return model_of(page).caption_batch(files, DecodeOptions(num_captions=3))


def assert_as_in_python(card: Card, caption: Caption) -> None:
    """A card shows a caption: its words, their probabilities, the other sentences, and how sure the model is."""
    assert card.caption == card.alt == (caption.text or "(no words)")
    assert [word.lower() for word, _ in card.words] == [word.lower() for word in caption.tokens]
    for (_, shown), probability in zip(card.words, caption.probabilities, strict=True):
        assert float(shown.removesuffix("%")) == pytest.approx(100 * probability, rel=0.06, abs=0.6)
    assert card.others == [other.text for other in caption.alternatives]
    assert card.state == (WORDS[caption.unsure] if caption.unsure else "sure")
    numbers = [float(number) for number in re.findall(r"([\d.e-]+)%", f"{card.why} {card.sure}")]
    if caption.confidence is not None and caption.familiar is not None:
        assert numbers == pytest.approx([100 * caption.confidence, 100 * caption.familiar], rel=0.06, abs=0.6)
    else:
        assert numbers == pytest.approx([100 * caption.mean_probability], rel=0.06, abs=0.6)


def noise(width: int, height: int, seed: int = 0, channels: int = 3) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values)


def soft(width: int, height: int, channels: int = 3) -> Image.Image:
    """Patches of colours, as codecs of photographs expect them."""
    return noise(width // 16 + 2, height // 16 + 2, 1, channels).resize((width, height), Image.Resampling.BICUBIC)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of many sizes, shapes and formats, also turned and transparent ones."""
    folder = tmp_path_factory.mktemp("pictures")
    pictures: list[tuple[str, Image.Image, dict[str, Any]]] = [
        *((f"noise{w}x{h}.png", noise(w, h), {}) for w, h in ((1, 1), (3, 700), (57, 100), (256, 256), (1300, 900))),
        ("lossy.jpg", soft(500, 375), {"quality": 80}),
        ("fine.jpg", soft(500, 375), {"quality": 95, "subsampling": 0}),
        ("grey.jpg", soft(333, 500).convert("L"), {}),
        ("lossless.webp", soft(640, 480), {"lossless": True}),
        ("lossy.webp", soft(640, 480), {"quality": 80}),
        ("drawing.gif", draw_picture(3, (300, 200)), {}),
        ("drawing.bmp", draw_picture(4, (300, 200)), {}),
        ("palette.png", draw_picture(5, (300, 200)).convert("P"), {}),
        ("transparent.png", soft(400, 300, 4), {}),
        *((f"turned{turn}.jpg", soft(500, 375), {"exif": turned(turn)}) for turn in (2, 5, 6, 8)),
    ]
    for name, image, options in pictures:
        image.save(folder / name, **options)
    return [folder / name for name, _, _ in pictures]


@pytest.mark.slow
def test_the_page_is_small(shipped: Page) -> None:
    assert sum(path.stat().st_size for path in shipped.folder.iterdir()) < MOST


@pytest.mark.slow
def test_the_encoder_sees_the_pixels_that_it_sees_in_python(
    visitor: PageVisitor, shipped: Page, files: list[Path]
) -> None:
    model = model_of(shipped)
    size = model.preprocess.size
    for file in files:
        pixels = np.frombuffer(visitor.pixels(file, size), dtype=np.uint8).reshape(size, size, 3).astype(int)
        difference = np.abs(pixels - model.prepare(file))
        # How a lossy file is decoded, and how colours are laid on white, may differ by a rounding.
        exact = file.suffix in (".png", ".gif", ".bmp") and "transparent" not in file.name
        assert difference.max() <= (0 if exact else 2), file.name


@pytest.mark.slow
def test_captions_are_those_of_python(visitor: PageVisitor, shipped: Page, files: list[Path]) -> None:
    files = [*files, *SAMPLES.values()]
    visitor.choose(*files)
    cards = visitor.finished(len(files), 120)
    assert [card.name for card in cards] == [file.name for file in files]
    for card, caption in zip(cards, in_python(shipped, files), strict=True):
        assert_as_in_python(card, caption)
        assert card.lang == "en"
    assert {card.state for card in cards} >= {"not sure", "unfamiliar"}


def drawn(folder: Path, number: int) -> list[Path]:
    """Files of so many drawn pictures."""
    files = [folder / f"{index}.png" for index in range(number)]
    for index, file in enumerate(files):
        draw_picture(index).save(file)
    return files


@pytest.mark.slow
def test_so_are_those_of_a_tiny_checkpoint(tiny: Page, tmp_path: Path) -> None:
    """It writes other words, does not know what they are worth, and lets no evidence choose them."""
    files = drawn(tmp_path, 12)
    with PageVisitor(tiny.address) as visitor:
        visitor.open()
        visitor.drop(*files)
        cards = visitor.finished(len(files))
    captions = in_python(tiny, files)
    assert len({caption.text for caption in captions}) > 3
    for card, caption in zip(cards, captions, strict=True):
        assert_as_in_python(card, caption)


@pytest.mark.slow
def test_so_are_those_in_chinese(
    chinese_checkpoint_file: Path, runtime: Path, tmp_path: Path, files: list[Path]
) -> None:
    for page in made(chinese_checkpoint_file, runtime, tmp_path / "web"):
        with PageVisitor(page.address) as visitor:
            visitor.open()
            visitor.drop(*files[:6])
            cards = visitor.finished(6)
        for card, caption in zip(cards, in_python(page, files[:6]), strict=True):
            assert_as_in_python(card, caption)
            assert " " not in card.caption


@pytest.mark.slow
def test_it_works_without_a_network_after_the_first_visit(shipped: Page, files: list[Path]) -> None:
    server = Folder(shipped.folder)
    with PageVisitor(server.address) as visitor:
        visitor.open()
        assert visitor.status() == "Ready. This page now works without a network, too."
        visitor.choose(SAMPLES["photographer"])
        before = visitor.finished(1)[0]
        server.stop()
        for address in ("", "?from=elsewhere", "index.html"):
            visitor.open(address)
            visitor.choose(SAMPLES["photographer"])
            assert visitor.finished(1)[0].caption == before.caption


@pytest.mark.slow
def test_other_pages_below_its_folder_stay_what_they_are(tiny: Page, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "web")
    (folder / "about").mkdir()
    for name in ("about.html", "about/index.html"):
        (folder / name).write_text(f"<h1>This is {name}</h1>")
    licences = (folder / "licences.txt").read_text().split()
    server = Folder(folder)
    with PageVisitor(server.address) as visitor:
        visitor.open()
        visitor.all("footer a")[0].click()
        visitor.wait(lambda: visitor.texts("body")[0].split() == licences)
        for address, name in (("about.html?from=page", "about.html"), ("about/", "about/index.html")):
            visitor.driver.get(f"{server.address}/{address}")
            assert visitor.texts("h1") == [f"This is {name}"]
        server.stop()
        visitor.driver.get(f"{server.address}/licences.txt")
        assert visitor.texts("body")[0].split() == licences


@pytest.mark.slow
def test_a_new_version_takes_the_place_of_the_old_one(tiny: Page, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "web")
    caches = "const done = arguments[0]; caches.keys().then(done)"
    with served(folder) as server, PageVisitor(server.address) as visitor:
        visitor.open()
        [before] = visitor.driver.execute_async_script(caches)
        home = (folder / "index.html").read_text()
        (folder / "index.html").write_text(home.replace("<h1>A sentence", "<h1>A better sentence"))
        worker, version = (folder / "sw.js").read_text(), listed(folder)[0]
        (folder / "sw.js").write_text(worker.replace(version, "the next one"))
        visitor.driver.refresh()
        visitor.wait(lambda: visitor.status() == "There is a new version of this page. Load it again to use it.")
        visitor.open()
        assert visitor.texts("h1") == ["A better sentence for your picture"]
        [after] = visitor.driver.execute_async_script(caches)
        assert before != after == before.replace(version, "the next one")


@pytest.mark.slow
def test_browsers_do_not_take_the_service_worker_of_an_unfinished_export(tiny: Page, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "web")
    update = """const done = arguments[0];
        navigator.serviceWorker.getRegistration().then(found => found.update())
          .then(() => done("taken"), () => done("refused"))"""
    kept = "const done = arguments[0]; caches.keys().then(names => done(names.length))"
    with served(folder) as server:
        with PageVisitor(server.address) as visitor:
            visitor.open()
            listing = web._listing("0123456789abcdef", listed(folder)[1])
            (folder / "sw.js").write_bytes(listing + web._UNFINISHED)
            visitor.driver.get(f"{server.address}/licences.txt")  # the page's own policy would refuse any update
            assert visitor.driver.execute_async_script(update) == "refused"
            visitor.open()
            assert visitor.status() == "Ready. This page now works without a network, too."
            assert visitor.driver.execute_async_script(kept) == 1
        with PageVisitor(server.address) as visitor:
            visitor.open()
            assert visitor.status() == "Ready."


@pytest.mark.slow
def test_a_server_may_unpack_files_itself(tiny: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some say that what is packed is the plain file in another encoding, and then the browser unpacks it."""
    end_headers = static_page._Handler.end_headers

    def with_encoding(handler: static_page._Handler) -> None:
        if handler.path.endswith(".gz"):
            handler.send_header("Content-Encoding", "gzip")
        end_headers(handler)

    monkeypatch.setattr(static_page._Handler, "end_headers", with_encoding)
    draw_picture(1).save(tmp_path / "drawing.png")
    with served(tiny.folder) as server, PageVisitor(server.address) as visitor:
        visitor.open()
        visitor.choose(tmp_path / "drawing.png")
        assert visitor.finished(1)[0].state == "sure"


@pytest.mark.slow
def test_a_missing_file_of_the_model_is_named(tiny: Page, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "web")
    (folder / "step.onnx.gz").unlink()
    with served(folder) as server, PageVisitor(server.address) as visitor:
        visitor.driver.get(server.address)
        visitor.wait(lambda: "the file step.onnx.gz is missing on the server (404)" in visitor.status())


@pytest.mark.slow
def test_a_first_visit_that_breaks_off_says_so(tiny: Page, tmp_path: Path) -> None:
    """Where not all files come, nothing is kept, and the next visit begins anew."""
    folder = shutil.copytree(tiny.folder, tmp_path / "web")
    (folder / "onnxruntime.wasm.gz").rename(tmp_path / "later")
    with served(folder) as server, PageVisitor(server.address) as visitor:
        visitor.driver.get(server.address)
        visitor.wait(lambda: "onnxruntime.wasm.gz is missing on the server (404)" in visitor.status())
        (tmp_path / "later").rename(folder / "onnxruntime.wasm.gz")
        visitor.open()
        assert visitor.status() == "Ready. This page now works without a network, too."


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["WebAssembly", "DecompressionStream"])
def test_a_browser_that_lacks_something_is_told_so(tiny: Page, gone: str) -> None:
    with PageVisitor(tiny.address) as visitor:
        script = {"source": f"delete globalThis.{gone}"}
        visitor.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
        visitor.driver.get(tiny.address)
        visitor.wait(lambda: visitor.status() == f"This browser lacks {gone}. Use a newer one, please.")


@pytest.mark.slow
def test_files_can_be_dropped_and_one_may_be_broken(visitor: PageVisitor, files: list[Path], tmp_path: Path) -> None:
    broken, text = tmp_path / "broken.jpg", tmp_path / "notes.txt"
    broken.write_bytes(files[5].read_bytes()[:100])
    text.write_text("no picture")
    visitor.drop(files[5], broken, text, files[6])
    cards = visitor.finished(4)
    assert [card.name for card in cards] == [files[5].name, "broken.jpg", "notes.txt", files[6].name]
    for card in cards[1:3]:
        assert card.state == "refused"
        reason = "it is damaged, or no picture that this browser can read"
        assert card.caption == f"This file has no caption: {reason}."
    assert [cards[0].state, cards[3].state] == ["unfamiliar", "unfamiliar"]
    visitor.drop()
    visitor.wait(lambda: visitor.status().startswith("That was no picture file."))


@pytest.mark.slow
def test_pictures_can_be_pasted(visitor: PageVisitor) -> None:
    visitor.paste(SAMPLES["cat"])
    [card] = visitor.finished(1)
    assert "cat" in card.caption.lower()


@pytest.mark.slow
def test_the_camera_takes_a_picture(visitor: PageVisitor) -> None:
    visitor.all("#camera")[0].click()
    visitor.wait(lambda: visitor.all("#shoot")[0].is_enabled())
    visitor.all("#shoot")[0].click()
    [card] = visitor.finished(1)
    assert card.name.startswith("Photo ")
    assert card.caption
    # The camera is off again.
    assert visitor.driver.execute_script("return document.querySelector('video').srcObject") is None
    assert not visitor.driver.execute_script("return document.querySelector('dialog').open")


@pytest.mark.slow
def test_a_huge_picture_is_made_smaller_first(visitor: PageVisitor, tmp_path: Path) -> None:
    load_image(SAMPLES["photographer"]).resize((7000, 5000)).save(tmp_path / "huge.jpg", quality=70)
    visitor.choose(tmp_path / "huge.jpg")
    [huge] = visitor.finished(1)
    visitor.choose(SAMPLES["photographer"])
    first, second = visitor.finished(2)
    assert huge == second
    # Not exactly the same: browsers do not say how they make pictures smaller.
    assert first.caption.split()[:2] == second.caption.split()[:2] == ["A", "man"]


@pytest.mark.slow
def test_everything_works_by_keyboard_and_captions_can_be_copied(visitor: PageVisitor) -> None:
    visitor.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    clipboard = "const done = arguments[0]; navigator.clipboard.readText().then(done, error => done(error.message))"
    visitor.choose(*SAMPLES.values())
    captions = [card.caption for card in visitor.finished(2)]
    focus = """const at = document.activeElement;
        return at.getAttribute("aria-label") ?? at.labels?.[0]?.textContent ?? at.textContent"""
    visitor.driver.execute_script(
        """const button = document.querySelector("#copy-all");
        window.said = [];
        new MutationObserver(() => window.said.push(button.textContent)).observe(button, { childList: true });
        document.querySelector("#files").focus()"""
    )
    seen = [visitor.driver.execute_script(focus)]
    while seen[-1] != "Remove cat.webp":
        visitor.press(Keys.TAB)
        seen.append(visitor.driver.execute_script(focus))
        if seen[-1] == "Copy all captions":
            visitor.press(Keys.ENTER)
            visitor.wait(lambda: visitor.driver.execute_script("return window.said") == ["Copied", "Copy all captions"])
            assert visitor.driver.execute_async_script(clipboard).splitlines() == captions
    names = [path.name for path in SAMPLES.values()]
    of_pictures = [what for name in names for what in ("Details", f"Copy the caption of {name}", f"Remove {name}")]
    assert seen == ["Choose pictures", "Use the camera", "Copy all captions", "Remove all", *of_pictures]
    visitor.press(Keys.ENTER)
    visitor.wait(lambda: [card.caption for card in visitor.cards()] == captions[:1])


@pytest.mark.slow
def test_nothing_is_asked_of_other_hosts(visitor: PageVisitor, shipped: Page) -> None:
    visitor.choose(SAMPLES["cat"])
    visitor.finished(1)
    asked = visitor.driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(address.startswith((shipped.address, f"blob:{shipped.address}")) for address in asked)
    done = "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('sent'), () => done('refused'))"
    assert visitor.driver.execute_async_script(done) == "refused"


# In the place of worker.js: what each way to another host comes to, and a request to the page's own.
_ESCAPES = """const [address, free] = [OTHER, new URL("free.js", import.meta.url)];
const tries = {
  fetch: () => fetch(address, { mode: "no-cors" }),
  import: () => import(address),
  socket: () => new Promise((done, refused) => {
    const socket = new WebSocket(address.replace("http", "ws"));
    Object.assign(socket, { onopen: done, onclose: refused, onerror: refused });
  }),
  worker: () => new Promise((done, refused) => {
    Object.assign(new Worker(free, { type: "module" }), { onmessage: done, onerror: refused });
  }),
  own: () => fetch(new URL("style.css", import.meta.url)),
};
const found = [];
for (const [name, attempt] of Object.entries(tries)) {
  found.push(await attempt().then(() => `${name} done`, () => `${name} refused`));
}
postMessage({ failed: found.join(", ") });
"""


@pytest.mark.slow
def test_the_worker_that_gets_the_pictures_cannot_ask_other_hosts(tiny: Page, tmp_path: Path) -> None:
    asked: list[str] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    other = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    address = json.dumps(f"http://127.0.0.1:{other.server_port}/picture")
    folder = shutil.copytree(tiny.folder, tmp_path / "web")
    (folder / "worker.js").write_text(_ESCAPES.replace("OTHER", address))
    (folder / "free.js").write_text(f"await fetch({address}, {{ mode: 'no-cors' }}); postMessage(0)")
    expected = "fetch refused, import refused, socket refused, worker refused, own done"
    try:
        with served(folder) as server, PageVisitor(server.address) as visitor:
            for _ in ("the first visit", "files from the service worker"):
                visitor.driver.get(server.address)
                visitor.wait(lambda: "cannot be loaded" in visitor.status())
                assert visitor.status() == f"The model cannot be loaded: {expected}."
    finally:
        other.shutdown()
        other.server_close()
    assert asked == []


@pytest.mark.slow
def test_pictures_may_come_before_the_model(tiny: Page, tmp_path: Path) -> None:
    files = drawn(tmp_path, 2)
    with PageVisitor(tiny.address) as visitor:
        visitor.driver.get(tiny.address)
        visitor.choose(files[0])
        visitor.wait(lambda: visitor.status().startswith("Ready"))
        visitor.choose(files[1])
        assert [card.name for card in visitor.finished(2)] == ["1.png", "0.png"]


@pytest.mark.slow
def test_a_browser_that_does_not_run_the_worker_is_told_so(tiny: Page, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "web")
    (folder / "worker.js").write_text("no program")
    with served(folder) as server, PageVisitor(server.address) as visitor:
        visitor.driver.get(server.address)
        visitor.wait(lambda: "cannot be loaded: this browser does not run it" in visitor.status())
