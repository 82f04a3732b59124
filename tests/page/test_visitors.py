"""Many visitors at once: each gets their own right captions, and what they took is given back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import browser
import numpy as np
import pytest
from browser import Visitor
from PIL import Image

import captioner
from captioner.pictures.load import load_image
from captioner.pictures.sample_pictures import SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

VISITORS = 10
SECONDS = float(os.environ.get("CAPTIONER_SOAK_SECONDS", "40"))  # `make soak` stays longer


def test_ten_visitors_get_their_own_captions(tmp_path: Path) -> None:
    if browser.chromium() is None:
        pytest.fail(browser.INSTALL) if os.environ.get("CI") else pytest.skip(browser.INSTALL)
    files = []
    for number in range(VISITORS):
        name = list(SAMPLES)[number % len(SAMPLES)]
        # The same picture turned and in another light: another caption, as a rule.
        light, turns = 0.4 + 0.12 * number, number // len(SAMPLES)
        pixels = np.rot90(np.asarray(load_image(SAMPLES[name]), np.float32), turns) * light
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(files[-1])
    captions = [captioner.load().caption(file).text for file in files]
    assert len(set(captions)) > VISITORS // 2  # else a mix-up could not be seen

    with browser.server() as server, Visitor(server.address) as visitor:
        # Ten tabs of one browser are ten visits; ten browsers would leave nothing of a small machine to the page.
        tabs = [visitor.driver.current_window_handle]
        for _ in range(VISITORS - 1):
            visitor.driver.switch_to.new_window("tab")
            tabs.append(visitor.driver.current_window_handle)
        visit(visitor, tabs, files, captions)  # loads the model, and ten threads get what they keep for all visits
        before = server.memory()
        end, rounds = time.monotonic() + SECONDS, 0
        while rounds == 0 or time.monotonic() < end:
            visit(visitor, tabs, files, captions)
            rounds += 1
        after = server.memory()
    print(f"{rounds * VISITORS} captions; {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after")
    # Streamlit holds a visit for two minutes after its end, should the visitor come back: some sixty, a megabyte each.
    assert after <= before + 100e6


def visit(visitor: Visitor, tabs: list[str], files: list[Path], captions: list[str]) -> None:
    """All of them upload at once; every caption has to be the right one."""
    for tab in tabs:
        visitor.driver.switch_to.window(tab)
        visitor.open()
    for tab, file in zip(tabs, files, strict=True):
        visitor.driver.switch_to.window(tab)
        visitor.upload(file)
    for tab, caption in zip(tabs, captions, strict=True):
        visitor.driver.switch_to.window(tab)
        visitor.wait(visitor.captions, seconds=120)
        assert visitor.captions() == [caption]
