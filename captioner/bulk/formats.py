"""Captions to files: text, jsonl, csv, coco, html, and sidecars.

A format is a function from rows to pieces of text, so that a stream of any length is written as it comes.
"""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import TypeAlias

from captioner.data.names import image_id
from captioner.errors import one_line
from captioner.inference.results import Row
from captioner.pictures.load import thumbnail

# At the start of a cell, also where it has an apostrophe before it already.
_FORMULA = re.compile(r"^(?='*[=+\-@\t\r\n＝＋－＠])")

Writer: TypeAlias = Callable[[Iterable[Row]], Iterator[str]]


def writer(format: str, num_captions: int = 1, coco_ids: Mapping[str, int] | None = None) -> Writer:
    """The function that renders rows in a format: text, jsonl, csv, coco or html.

    `num_captions` fixes the columns of csv; `coco_ids` maps file names to image ids for coco.
    """
    writers: dict[str, Writer] = {
        "text": text,
        "jsonl": jsonl,
        "csv": partial(csv_table, num_captions=num_captions),
        "coco": partial(coco, ids=coco_ids),
        "html": gallery,
    }
    return writers[format]


def text(rows: Iterable[Row]) -> Iterator[str]:
    """PATH<TAB>caption a picture; further captions follow after further tabs."""
    for row in rows:
        # A tab or line end in a file name would break the line's form, other control characters the terminal.
        yield "\t".join([one_line(row["path"]), *_all_texts(row)]) + "\n"


def jsonl(rows: Iterable[Row]) -> Iterator[str]:
    """One JSON object a picture: path, caption, logprob, words with probabilities, alternatives."""
    for row in rows:
        yield _json(row) + "\n"


def csv_table(rows: Iterable[Row], num_captions: int = 1) -> Iterator[str]:
    """path,caption,logprob, and caption_2 to caption_N where several were asked for.

    Spreadsheets take a cell for a formula that begins with "=" and the like, and may run a program by it, so that an
    apostrophe goes before it: see `predictions.unquoted`. Texts stand in quotation marks, or else a semicolon in a
    file name would begin a cell where spreadsheets take that for the delimiter.
    """
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)

    def line(cells: list[object]) -> str:
        table.writerow([_FORMULA.sub("'", cell, count=1) if isinstance(cell, str) else cell for cell in cells])
        written = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return written

    yield line(["path", "caption", "logprob", *(f"caption_{n}" for n in range(2, num_captions + 1))])
    for row in rows:
        best, *others = _all_texts(row)
        others += [""] * (num_captions - 1 - len(others))
        yield line([row["path"], best, round(row["logprob"], 6), *others])


def coco(rows: Iterable[Row], ids: Mapping[str, int] | None = None) -> Iterator[str]:
    """COCO's results JSON: a list of {"image_id", "caption"}. Raises DataError for a picture without an id."""
    separator = "[\n"
    for row in rows:
        yield separator + _json({"image_id": image_id(row["path"], ids), "caption": row["caption"]})
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def sidecar_paths(paths: Iterable[str]) -> dict[str, Path]:
    """For each picture the text file beside it: photo.txt for photo.jpg.

    Where two pictures of a folder differ only in their suffix, each keeps its full name: photo.jpg.txt.
    """
    wanted = {path: Path(path).with_suffix(".txt") for path in paths}
    taken = Counter(wanted.values())
    return {
        path: sidecar if taken[sidecar] == 1 else Path(path).with_name(Path(path).name + ".txt")
        for path, sidecar in wanted.items()
    }


def sidecar_text(row: Row, prefix: str = "", suffix: str = "") -> str:
    """What a sidecar holds: one line a caption."""
    return "".join(f"{prefix}{caption}{suffix}\n" for caption in _all_texts(row))


def gallery(rows: Iterable[Row], preview: Callable[[str], str | None] = thumbnail) -> Iterator[str]:
    """One HTML page that needs nothing else: thumbnails, captions and a box that filters them.

    `preview` gives the `data:` URI of a picture's thumbnail by its path, None for none.
    """
    yield _PAGE_START
    for row in rows:
        name = html.escape(PurePath(row["path"]).name)
        path = html.escape(row["path"])
        caption = html.escape(row["caption"])
        others = "".join(f"<li>{html.escape(other)}</li>" for other in _all_texts(row)[1:])
        source = preview(row["path"])  # none where the picture has gone since
        picture = f'<img src="{source}" alt="{caption}" loading="lazy">' if source else "<span>no preview</span>"
        yield (
            f"<figure>{picture}<figcaption><p>{caption}</p>{f'<ul>{others}</ul>' if others else ''}"
            f'<small title="{path}">{name} · {_percent(row)} a word</small></figcaption></figure>\n'
        )
    yield _PAGE_END


def _percent(row: Row) -> str:
    """The geometric mean of the words' probabilities."""
    steps = len(row["words"]) + (row["end_probability"] is not None)
    return f"{100 * math.exp(row['logprob'] / max(1, steps)):.0f} %"


def _all_texts(row: Row) -> list[str]:
    return [row["caption"], *(other["caption"] for other in row.get("alternatives", ()))]


def _json(value: Row) -> str:
    """JSON in readable UTF-8; a file name that is not valid text is escaped instead."""
    line = json.dumps(value, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return line


_PAGE_START = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Captions</title>
<style>
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif }
body { margin: 0 auto; max-width: 80rem; padding: 1rem }
header { position: sticky; top: 0; background: Canvas; padding: .5rem 0 1rem; z-index: 1 }
input { font: inherit; padding: .5rem .75rem; width: 100%; max-width: 30rem; box-sizing: border-box }
main { display: grid; gap: 1.5rem 1rem; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)) }
figure { margin: 0; content-visibility: auto; contain-intrinsic-size: auto 280px }
figure[hidden] { display: none }
img { width: 100%; height: 200px; object-fit: contain; background: #8882; border-radius: 6px }
p { margin: .5rem 0 .25rem } ul { margin: .25rem 0; padding-left: 1.2rem }
small { opacity: .7; overflow-wrap: anywhere }
</style>
<header><label>Show captions with <input type="search" id="filter" placeholder="for example: dog"></label>
<output id="count"></output></header>
<main>
"""

_PAGE_END = """</main>
<script>
const figures = [...document.querySelectorAll("figure")], count = document.getElementById("count");
const texts = figures.map(figure => figure.textContent.toLowerCase());
function show(query) {
  let shown = 0;
  figures.forEach((figure, i) => { figure.hidden = !texts[i].includes(query); shown += !figure.hidden });
  count.textContent = `${shown} of ${figures.length} pictures`;
}
document.getElementById("filter").addEventListener("input", e => show(e.target.value.trim().toLowerCase()));
show("");
</script>
</html>
"""
