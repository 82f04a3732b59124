"""Take the screenshots of docs/page.md: every view of the page, on a desktop screen, on a phone, and in dark mode.

    python docs/screenshots.py

The script needs Chromium and its driver, as the page's tests do.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Visitor, server  # noqa: E402  # the tests' browser driver

from captioner.pictures.load import load_image  # noqa: E402
from captioner.pictures.sample_pictures import SAMPLES  # noqa: E402

FOLDER = ROOT / "docs" / "images" / "page"


def main() -> None:
    """Write docs/images/page/{desk,phone,dark}-VIEW.webp for every view."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, server() as page:
        pictures = []
        for name, sample in SAMPLES.items():
            pictures.append(Path(temporary) / f"{name}.jpg")
            load_image(sample).save(pictures[-1], quality=90)
        for device, size, dark in (
            ("desk", (1280, 900), False),
            ("phone", (390, 844), False),
            ("dark", (1280, 900), True),
        ):
            with Visitor(page.address, *size, dark=dark) as visitor:
                _take(visitor, pictures, Path(temporary), device)


def _take(visitor: Visitor, pictures: list[Path], temporary: Path, device: str) -> None:
    def shoot(view: str) -> None:
        visitor.screenshot(temporary / "shot.png")
        with Image.open(temporary / "shot.png") as shot:
            shot.save(FOLDER / f"{device}-{view}.webp", quality=80, method=6)

    for view in ("caption", "compare", "inside", "sentence"):
        visitor.open("" if view == "caption" else view)
        visitor.upload(pictures[0])
        visitor.wait(lambda: visitor.all("[data-testid=stImage]"))
        if view == "compare":
            visitor.wait(lambda: len(visitor.captions()) > 5)
        if view == "inside":
            visitor.wait(lambda: len(visitor.words()) > 4 and visitor.texts(".captioner-bars caption"))
            words = visitor.words()
            words[1].click()
            visitor.wait(lambda: "after “" in visitor.texts(".captioner-bars caption")[0])
        if view == "sentence":
            visitor.wait(lambda: visitor.all("input[type=text]"))
            box = visitor.all("input[type=text]")[0]
            box.send_keys("A man with a camera stands on the grass\n")
            visitor.wait(lambda: len(visitor.all(".captioner-words")) == 2)
        shoot(view)
    visitor.open("folder")
    visitor.upload(*pictures)
    visitor.wait(lambda: visitor.all("[data-testid=stDownloadButton]"))
    visitor.wait(lambda: len(visitor.pictures()) == len(pictures))
    shoot("folder")
    if device == "desk":
        visitor.press(Keys.ARROW_RIGHT, Keys.ENTER)
        shoot("correct")
    visitor.open("about")
    shoot("about")


if __name__ == "__main__":
    main()
