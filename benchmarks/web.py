"""Compare the page of `captioner export --web` in Chromium with captioner in Python.

    python benchmarks/web.py --images DIR [--page web] [--pictures 100] [--split-list FILE] [--checkpoint NAME]

Both caption the same pictures, the page in headless Chromium and Python in float32. The script prints the share of
captions that are identical, the seconds that a caption takes from the file to the words, and the size of the page.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from static_page import Card, PageVisitor, served  # noqa: E402  # the tests' browser driver

import captioner  # noqa: E402  # the tests' folder has to be on the path first
from captioner.pictures.find import find_pictures  # noqa: E402  # as above


def main() -> None:
    """Caption in both ways, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", required=True)
    parser.add_argument("--page", type=Path, default=ROOT / "web")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--split-list", type=Path, help="a file with names of pictures, one a line: only these")
    parser.add_argument("--checkpoint", help="the one that the page was made with [flickr8k]")
    args = parser.parse_args()
    files = [Path(path) for path in find_pictures([args.images])]
    if args.split_list:
        wanted = set(args.split_list.read_text().split())
        files = [path for path in files if path.name in wanted]
    files = random.Random(0).sample(files, min(args.pictures, len(files)))

    with served(args.page) as folder, PageVisitor(folder.address) as visitor:
        start = time.perf_counter()
        visitor.open()
        loading = time.perf_counter() - start
        cards = [_card(visitor, file) for file in files]
        start = time.perf_counter()
        visitor.open()
        again = time.perf_counter() - start
    model = captioner.load(args.checkpoint, precision="float32")
    model.caption(files[0])
    captions, seconds = [], []
    for file in files:
        start = time.perf_counter()
        captions.append(model.caption(file))
        seconds.append(time.perf_counter() - start)

    same = [card.caption == caption.text for card, caption in zip(cards, captions, strict=True)]
    doubts = [bool(caption.unsure) == (card.state != "sure") for card, caption in zip(cards, captions, strict=True)]
    in_browser = [float(re.findall(r"It took ([\d.]+) seconds", card.why)[0]) for card in cards]
    size = sum(file.stat().st_size for file in args.page.iterdir())
    print(f"| {len(files)} pictures | |\n|---|---:|")
    print(f"| identical captions | {100 * statistics.mean(same):.0f} % |")
    print(f"| sure, or not sure, in both | {100 * statistics.mean(doubts):.0f} % |")
    print(f"| seconds a caption in the browser, median / slowest | {_spread(in_browser)} |")
    print(f"| seconds a caption in Python, float32, median / slowest | {_spread(seconds)} |")
    print(f"| seconds until the page is ready, first visit / later | {loading:.1f} / {again:.1f} |")
    print(f"| size of the page, MB | {size / 1e6:.2f} |")


def _card(visitor: PageVisitor, file: Path) -> Card:
    visitor.choose(file)
    [card] = visitor.finished(1)
    visitor.all(".remove")[0].click()
    return card


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} / {max(seconds):.2f}"


if __name__ == "__main__":
    main()
