"""The page in headless Chromium, with the shipped checkpoints, from upload to caption."""

from __future__ import annotations

import csv
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import browser
import pytest
from browser import Visitor
from conftest import draw_picture
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

import captioner
from captioner.pictures.load import load_image
from captioner.pictures.sample_pictures import SAMPLES

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A page that is being served."""
    if browser.chromium() is None:
        if os.environ.get("CI"):
            pytest.fail(f"no browser to test the page in: {browser.INSTALL}")
        pytest.skip(browser.INSTALL)
    with browser.server() as server:
        yield server.address


@pytest.fixture(scope="module")
def window(address: str) -> Iterator[Visitor]:
    """One window, used again, for it takes a second to open."""
    with Visitor(address) as visitor:
        yield visitor


@pytest.fixture
def visitor(window: Visitor) -> Visitor:
    """A visit of its own."""
    window.open()
    return window


@cache
def shipped(name: str | None = None) -> captioner.Captioner:
    return captioner.load(name)


@pytest.fixture
def man(tmp_path: Path) -> Path:
    return saved(tmp_path / "man.png", load_image(SAMPLES["photographer"]))


def saved(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def uploaded(visitor: Visitor, *files: Path) -> list[str]:
    """The captions once as many as files are there."""
    visitor.upload(*files)
    visitor.wait(lambda: len(visitor.captions()) == len(files))
    return visitor.captions()


def test_upload_gives_the_caption_that_the_captioner_gives(visitor: Visitor, man: Path) -> None:
    assert uploaded(visitor, man) == [shipped().caption(man).text]
    (picture,) = visitor.all("[data-testid=stImage] img")
    assert picture.get_attribute("alt") == shipped().caption(man).text
    # Nothing of the upload is left in the box for files: it has been let go.
    assert not visitor.all("[data-testid=stFileUploaderFile]")


@pytest.mark.slow
def test_the_chinese_model_writes_chinese(visitor: Visitor, man: Path) -> None:
    uploaded(visitor, man)
    visitor.click("中文")
    expected = shipped("flickr8k-zh").caption(man).text
    visitor.wait(lambda: visitor.captions() == [expected])
    # The choice outlasts other views and a reload.
    visitor.click("Compare")
    visitor.wait(lambda: expected in visitor.captions())
    visitor.driver.refresh()
    visitor.wait(lambda: expected in visitor.captions())


def test_a_reload_loses_nothing(visitor: Visitor, man: Path) -> None:
    captions = uploaded(visitor, man)
    visitor.driver.refresh()
    visitor.wait(lambda: visitor.captions() == captions)
    visitor.click("Many pictures")
    visitor.upload(man)
    visitor.wait(visitor.pictures)
    visitor.driver.refresh()
    visitor.wait(lambda: any(picture.focused for picture in visitor.pictures()))
    visitor.press("x")
    visitor.wait(lambda: visitor.pictures()[0].state == "No caption wanted")
    visitor.driver.refresh()
    visitor.wait(lambda: visitor.pictures() and visitor.pictures()[0].state == "No caption wanted")
    # Another tab is another visit.
    visitor.open()
    assert not visitor.captions()


@pytest.mark.slow
def test_a_slow_network_loses_nothing(address: str, man: Path) -> None:
    with Visitor(address, latency=1.0) as visitor:
        visitor.open()
        uploaded(visitor, man)
        visitor.click("Many pictures")
        visitor.upload(man)
        visitor.wait(visitor.pictures)


@pytest.mark.slow
def test_the_page_speaks_the_language_of_the_browser(address: str) -> None:
    with Visitor(address, language="zh-CN") as visitor:
        visitor.open()
        assert visitor.texts("h1") == ["为你的图片写一句话"]
        visitor.click("English")
        visitor.wait(lambda: visitor.texts("h1") == ["A sentence for your picture"])


def test_a_slider_changes_captions_and_encodes_nothing(visitor: Visitor, man: Path) -> None:
    uploaded(visitor, man)
    visitor.click("Compare")
    visitor.wait(lambda: len(visitor.captions()) > 5)
    before, cost = visitor.captions(), note(visitor, "Encoding the picture took")
    (temperature,) = visitor.all("input[type=range][aria-label=Temperature]")
    visitor.driver.execute_script("arguments[0].focus()", temperature)
    ActionChains(visitor.driver).send_keys(*[Keys.ARROW_LEFT] * 12).perform()
    visitor.wait(lambda: visitor.captions() != before)
    assert visitor.captions()[:4] == before[:4]  # greedy and beam draw nothing
    # The time that encoding took is the one of before: it was not done again.
    assert note(visitor, "Encoding the picture took").split(",")[0] == cost.split(",")[0]


def note(visitor: Visitor, start: str) -> str:
    return next(text for text in visitor.texts("[data-testid=stCaptionContainer]") if text.startswith(start))


def test_a_click_on_a_word_shows_what_was_weighed(visitor: Visitor, man: Path) -> None:
    uploaded(visitor, man)
    visitor.click("Look inside")
    visitor.wait(lambda: visitor.words() and visitor.texts(".captioner-bars caption"))
    explanation = shipped().explain(man)
    words = [word.text.split("\n")[0] for word in visitor.words()]
    assert words == [*explanation.caption.tokens, "(end)"]
    visitor.words()[1].click()
    visitor.wait(lambda: "after “a”" in visitor.texts(".captioner-bars caption")[0])
    shown = visitor.texts(".captioner-bars tbody th")
    assert shown[:5] == [candidate.word for candidate in explanation.steps[1].candidates[:5]]
    assert visitor.texts(".captioner-bars .chosen th") == [words[1]]
    pressed = [word.get_attribute("aria-pressed") for word in visitor.words()]
    assert pressed == ["true" if place == 1 else "false" for place in range(len(words))]


@pytest.mark.slow
def test_words_are_chosen_by_keyboard_alone(visitor: Visitor, man: Path) -> None:
    uploaded(visitor, man)
    visitor.click("Look inside")
    visitor.wait(lambda: visitor.words() and visitor.texts(".captioner-bars caption"))
    visitor.words()[0].send_keys(Keys.ENTER)
    visitor.wait(lambda: "first words" in visitor.texts(".captioner-bars caption")[0])
    active = "let e = document.activeElement; while (e.shadowRoot) e = e.shadowRoot.activeElement; return e"
    visitor.wait(lambda: visitor.driver.execute_script(active) == visitor.words()[0])  # the focus has stayed
    visitor.driver.switch_to.active_element.send_keys(Keys.TAB + Keys.ENTER)
    visitor.wait(lambda: "after “" in visitor.texts(".captioner-bars caption")[0])


@pytest.mark.slow
def test_a_zip_becomes_a_csv(visitor: Visitor, man: Path, tmp_path: Path) -> None:
    cat = saved(tmp_path / "cat.jpg", load_image(SAMPLES["cat"]))
    harmful = "<img src=x onerror=document.title='harm'>.png"
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as archive:
        archive.write(man, "../../man.png")
        archive.writestr("broken.png", b"nothing")
        archive.write(cat, harmful)
    folder = tmp_path / "downloads"
    visitor.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    visitor.click("Many pictures")
    visitor.upload(tmp_path / "holiday.zip")
    visitor.wait(lambda: "2 captioned, 1 could not be read" in visitor.texts("[data-testid=stMain]")[0])
    visitor.click("Download CSV")
    wait_for(lambda: (folder / "captions.csv").is_file())
    with (folder / "captions.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[:2] for row in rows] == [
        ["path", "caption"],
        ["man.png", shipped().caption(man).text],
        [harmful, shipped().caption(cat).text],
    ]
    assert visitor.driver.title != "harm"


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "reason"), [("broken.png", "not a picture"), ("bomb.png", "more than 50 million pixels")]
)
def test_bad_pictures_get_one_sentence_and_the_next_its_caption(
    visitor: Visitor, man: Path, tmp_path: Path, name: str, reason: str
) -> None:
    file = tmp_path / name
    if name == "bomb.png":
        Image.new("1", (12_000, 12_000)).save(file)  # 144 million pixels in 20 KB
    else:
        file.write_bytes(b"nothing of a picture")
    visitor.upload(file)
    visitor.wait(lambda: visitor.all("[data-testid=stAlert]"))
    (alert,) = visitor.texts("[data-testid=stAlert]")
    assert name in alert
    assert reason in alert
    assert uploaded(visitor, man) == [shipped().caption(man).text]


@pytest.mark.slow
def test_the_page_works_inside_another_site(visitor: Visitor, address: str, man: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(f'<iframe src="{address}" width="900" height="700"></iframe>')
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        try:
            visitor.driver.get(f"http://127.0.0.1:{site.server_port}")  # to a browser, another site than localhost
            visitor.driver.switch_to.frame(0)
            assert uploaded(visitor, man) == [shipped().caption(man).text]
        finally:
            visitor.driver.switch_to.default_content()
            site.shutdown()


def test_a_file_over_the_limit_is_refused(visitor: Visitor, man: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(51 * 1024 * 1024)
    visitor.upload(large)
    visitor.wait(lambda: "50.0MB or smaller" in visitor.texts("[data-testid=stMain]")[0])
    assert not visitor.captions()
    assert uploaded(visitor, man)


def test_two_visitors_get_their_own_captions(visitor: Visitor, address: str, man: Path, tmp_path: Path) -> None:
    cat = saved(tmp_path / "cat.png", load_image(SAMPLES["cat"]))
    with Visitor(address) as other:
        other.open()
        visitor.upload(man)
        other.upload(cat)
        visitor.wait(visitor.captions)
        other.wait(other.captions)
        assert visitor.captions() == [shipped().caption(man).text] != other.captions()
        assert other.captions() == [shipped().caption(cat).text]


@pytest.mark.slow
def test_the_camera_takes_a_picture(visitor: Visitor) -> None:
    visitor.click("Camera")

    def taken() -> list[str]:
        """The caption. Before the camera gives a picture, a click takes none, and a person clicks again."""
        for button in visitor.all("[data-testid=stCameraInputButton]"):
            if button.text == "Take Photo":
                button.click()
        return visitor.captions()

    visitor.wait(taken)
    assert visitor.captions()[0]


@pytest.mark.slow
def test_a_narrow_screen_shows_every_view_without_sideways_scrolling(address: str, man: Path) -> None:
    with Visitor(address, 380, 800) as visitor:
        for view in ("", "compare", "inside", "sentence", "folder", "about"):
            visitor.open(view)
            if view in ("", "compare", "inside", "sentence"):
                visitor.upload(man)
                visitor.wait(lambda: visitor.all("[data-testid=stImage]"))
            links = visitor.all(".st-key-views a")
            assert len(links) == 6
            assert all(link.is_displayed() for link in links)
            if not view:  # the caption is on the first screen, without scrolling
                visitor.wait(visitor.captions)
                assert visitor.all("[data-testid=stCode]")[0].rect["y"] < 700
            page = "const e = document.querySelector('[data-testid=stMain]'); "
            assert visitor.driver.execute_script(page + "return e.scrollWidth <= e.clientWidth"), view


@pytest.mark.slow
def test_a_server_shows_the_checkpoints_of_a_folder(tmp_path: Path, tiny_checkpoint_file: Path, address: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "holiday.safetensors").write_bytes(tiny_checkpoint_file.read_bytes())
    (folder / "state.safetensors").write_bytes(b"what training goes on from")
    picture = saved(tmp_path / "a.png", draw_picture(1))
    with browser.server("--", "--checkpoints", str(folder)) as own, Visitor(own.address) as visitor:
        visitor.open()
        assert "state" not in visitor.texts("button")
        visitor.click("holiday")
        visitor.upload(picture)
        expected = captioner.load(tiny_checkpoint_file).caption(picture).text
        visitor.wait(lambda: visitor.captions() == [expected])


@pytest.mark.slow
def test_a_search_saves_what_is_typed_elsewhere_and_leads_back(
    tmp_path: Path, finder_checkpoint_file: Path, tiny_checkpoint_file: Path, address: str
) -> None:
    for name, file in (("finder", finder_checkpoint_file), ("other", tiny_checkpoint_file)):
        (tmp_path / f"{name}.safetensors").write_bytes(file.read_bytes())
    pictures = {f"{number:02}.png": draw_picture(number) for number in range(22)}
    files = [saved(tmp_path / name, picture) for name, picture in pictures.items()]
    model = captioner.load(finder_checkpoint_file)
    reader = model.reader()
    scores = reader.pictures(model.encode(files)) @ reader.sentences(["a dog qzxv"])[0]
    ranked = [name for _, name in sorted(zip(-scores, pictures, strict=True))]

    with browser.server("--", "--checkpoints", str(tmp_path)) as own, Visitor(own.address) as visitor:
        visitor.open("folder?model=other")
        visitor.upload(files[0])
        visitor.wait(visitor.pictures)
        assert not visitor.part(".find").is_displayed()  # this model has no matcher
        visitor.open("folder?model=finder")
        visitor.upload(*files)
        visitor.wait(lambda: f"{len(files)} captioned" in visitor.texts("[data-testid=stMain]")[0])
        visitor.part(".order [value=by_name]").click()
        visitor.wait(lambda: paths(visitor) == list(pictures))
        visitor.driver.execute_script("arguments[0].click()", visitor.part(".card"))  # which may still move
        visitor.part("textarea").clear()
        visitor.part("textarea").send_keys("mine")  # and not saved
        visitor.part(".describe").send_keys("a dog qzxv", Keys.ENTER)
        visitor.wait(lambda: paths(visitor) == ranked[:20])
        assert visitor.part(".found").text.endswith("does not know these words: qzxv.")
        visitor.part(".all").click()
        visitor.wait(lambda: paths(visitor) == ranked)
        assert "mine" in [picture.caption for picture in visitor.pictures() if picture.path == "00.png"]
        visitor.part(".back").click()
        visitor.wait(lambda: paths(visitor) == list(pictures))
        assert not visitor.part(".describe").get_attribute("value")


def paths(visitor: Visitor) -> list[str]:
    return [picture.path for picture in visitor.pictures()]
