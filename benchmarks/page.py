"""Measure how many seconds a visitor of the page waits, from upload to caption and from slider to captions.

    python benchmarks/page.py [--rounds 5]

The script drives the page in headless Chromium, which takes its own share of the processor. All figures are medians on
a warm page, except the first upload after the server starts. Captioning from Python is timed for comparison.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Visitor, server  # noqa: E402  # the tests' browser driver

import captioner  # noqa: E402  # the tests' folder has to be on the path first
from captioner.pictures.load import load_image  # noqa: E402  # as above
from captioner.pictures.sample_pictures import SAMPLES  # noqa: E402  # as above


def main() -> None:
    """Time the page, then captioning in Python; print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, server() as page, Visitor(page.address) as visitor:
        pictures = [Path(folder) / f"{name}.jpg" for name in SAMPLES]
        for sample, path in zip(SAMPLES.values(), pictures, strict=True):
            load_image(sample).save(path, quality=90)
        cold = _first_caption(visitor, pictures[0])
        first = [_first_caption(visitor, pictures[number % len(pictures)]) for number in range(rounds)]
        again = [_decode_again(visitor, number) for number in range(rounds)]
    print("| what the visitor waits for | seconds |\n|---|---:|")
    print(f"| the caption of the first upload after the server starts | {cold:.2f} |")
    print(f"| the caption of an upload, page warm | {statistics.median(first):.2f} |")
    print(f"| the captions of `Compare` after a slider moves | {statistics.median(again):.2f} |")
    model = captioner.load()
    for what, function in (
        ("for comparison: the caption of a picture in Python", lambda: model.caption(SAMPLES["cat"])),
        ("the same with `explain`", lambda: model.explain(SAMPLES["cat"])),
    ):
        function()
        print(f"| {what} | {statistics.median(_seconds(function) for _ in range(rounds)):.3f} |")


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _first_caption(visitor: Visitor, picture: Path) -> float:
    """Upload a picture. Returns the seconds from when the browser has the file to when it shows the caption."""
    visitor.open()
    visitor.wait(lambda: visitor.all("input[type=file]"))
    start = time.perf_counter()
    visitor.upload(picture)
    while not visitor.captions():
        time.sleep(0.005)
    return time.perf_counter() - start


def _decode_again(visitor: Visitor, number: int) -> float:
    if number == 0:
        visitor.click("Compare")
        visitor.wait(lambda: len(visitor.captions()) > 5)
    (temperature,) = visitor.all("input[type=range][aria-label=Temperature]")
    visitor.driver.execute_script("arguments[0].focus()", temperature)
    before = visitor.captions()
    start = time.perf_counter()
    ActionChains(visitor.driver).send_keys(Keys.ARROW_LEFT).perform()
    while visitor.captions() == before and time.perf_counter() - start < 10:
        time.sleep(0.005)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
