import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from captioner.bulk.formats import sidecar_names, sidecar_text, writer
from captioner.bulk.outputs import Sidecars
from captioner.errors import DataError
from captioner.evaluation.predictions import Prediction, read_predictions
from captioner.inference.results import Caption, FileResult, Row, Tag, row_of

TRUST = ["confidence", "familiar", "unsure", "tags", "digest"]


def result(path: str, text: str = "A dog", others: tuple[str, ...] = ()) -> FileResult:
    alternatives = tuple(Caption(other, ("a",), (0.5,), 0.5, -1.4) for other in others)
    return FileResult(path, Caption(text, ("a", "dog"), (0.5, 0.25), 0.5, -2.77, alternatives))


def rendered(format: str, *results: FileResult, **settings: object) -> str:
    return "".join(writer(format, **settings)(row_of(r) for r in results))  # type: ignore[arg-type]


def test_text_has_one_line_a_picture_whatever_its_name() -> None:
    assert rendered("text", result("a.jpg"), result("b\n\tc.jpg")) == "a.jpg\tA dog\nb\\n\\tc.jpg\tA dog\n"


def test_text_puts_further_captions_after_further_tabs() -> None:
    assert rendered("text", result("a.jpg", others=("B", "C"))) == "a.jpg\tA dog\tB\tC\n"


def test_jsonl_holds_words_probabilities_and_alternatives() -> None:
    row = json.loads(rendered("jsonl", result("ä.jpg", others=("B",))))
    assert row["path"] == "ä.jpg"
    assert row["caption"] == "A dog"
    assert row["logprob"] == -2.77
    assert row["words"] == [{"word": "a", "probability": 0.5}, {"word": "dog", "probability": 0.25}]
    assert row["end_probability"] == 0.5
    assert [other["caption"] for other in row["alternatives"]] == ["B"]


def test_a_name_that_is_not_valid_text_survives_in_jsonl() -> None:
    line = rendered("jsonl", result("bad\udcff.jpg"))
    line.encode()  # it can be written
    assert json.loads(line)["path"] == "bad\udcff.jpg"


def test_csv_quotes_what_needs_it_and_has_a_column_a_caption() -> None:
    written = rendered("csv", result('a,"b".jpg', others=("B",)), result("c.jpg"), num_captions=3)
    rows = list(csv.reader(io.StringIO(written)))
    assert rows[0] == [*("path", "caption", "logprob", "caption_2", "caption_3"), *TRUST]
    assert rows[1] == ['a,"b".jpg', "A dog", "-2.77", "B", "", "", "", "", "", ""]
    assert rows[2] == ["c.jpg", "A dog", "-2.77", "", "", "", "", "", "", ""]


def test_csv_says_how_sure_a_caption_is_and_what_else_is_seen() -> None:
    caption = Caption("A dog", ("a", "dog"), (0.5, 0.25), 0.5, -2.77, confidence=0.25, familiar=1.0, unsure="not sure")
    tagged = replace(caption, tags=(Tag("dog", 0.9), Tag("=1", 0.8)))
    [names, row] = csv.reader(io.StringIO(rendered("csv", FileResult("a.jpg", tagged))))
    assert names[-5:] == TRUST
    assert row[-5:] == ["0.25", "1.0", "not sure", "dog, =1", ""]
    assert "25 % sure, not sure" in rendered("html", FileResult("a.jpg", tagged))
    assert row_of(FileResult("a.jpg", caption)).keys().isdisjoint(["tags", "alternatives"])


@pytest.mark.parametrize("format", ["coco", "text", "csv", "jsonl"])
def test_a_picture_without_a_caption_has_a_row_but_no_result_of_coco(format: str) -> None:
    written = rendered(format, result("7.jpg", ""), result("8.jpg"))
    assert ("7" in written) == (format != "coco")
    assert "8" in written


def test_coco_takes_ids_from_file_names_or_from_the_list() -> None:
    names = [result("x/COCO_val2014_000000000042.jpg"), result("7.jpg")]
    assert [row["image_id"] for row in json.loads(rendered("coco", *names))] == [42, 7]
    assert json.loads(rendered("coco", result("dog.jpg"), coco_ids={"dog.jpg": 5}))[0]["image_id"] == 5
    with pytest.raises(DataError, match="--coco-images"):
        rendered("coco", result("dog.jpg"))


def test_coco_of_nothing_is_an_empty_list() -> None:
    assert json.loads(rendered("coco")) == []


def test_sidecars_of_equal_names_do_not_collide() -> None:
    paths = ["a/x.jpg", "b/x.jpg", "a/y.jpg", "a/y.png"]
    name = sidecar_names(paths)
    assert [name(path, ".txt") for path in paths] == ["a/x.txt", "b/x.txt", "a/y.jpg.txt", "a/y.png.txt"]


def test_sidecars_of_equal_names_do_not_collide_however_the_paths_are_written() -> None:
    paths = ["a/x.jpg", "./a/x.png", "b/z.jpg", "a//x.gif", "c", "d.", "b/.z.jpg", "a.b/c"]
    name = sidecar_names(paths)
    names = [name(path, ".txt") for path in paths]
    assert names[:4] == ["a/x.jpg.txt", "./a/x.png.txt", "b/z.txt", "a//x.gif.txt"]
    assert names[4:] == ["c.txt", "d..txt", "b/.z.txt", "a.b/c.txt"]
    assert sidecar_names([])("a.jpg", ".txt") == "a.txt"


def test_sidecar_text_has_prefix_and_suffix_on_every_line() -> None:
    row = row_of(result("a.jpg", others=("B",)))
    assert sidecar_text(row, "photo of ", ", sharp") == "photo of A dog, sharp\nphoto of B, sharp\n"


def test_html_is_one_self_contained_page_with_everything_escaped(pictures: list[Path], tmp_path: Path) -> None:
    nasty = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    pictures[0].rename(nasty)
    page = rendered("html", result(str(nasty), text="A <b> dog"), result(str(pictures[1])))
    assert "<img src=x" not in page
    assert "A &lt;b&gt; dog" in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_html_of_one_picture_to_the_byte() -> None:
    """Quotation marks are escaped as the standard library does it, so that pages of two versions can be compared."""
    page = rendered("html", result("a/say \"hi\" & 'bye'.jpg", "A man's dog", others=("B",)))
    assert page.startswith('<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport"')
    assert page.endswith('show("");\n</script>\n</html>\n')
    main = page.partition("<main>\n")[2].partition("</main>\n")[0]
    assert main == (
        "<figure><span>no preview</span><figcaption><p>A man&#x27;s dog</p><ul><li>B</li></ul>"
        '<small title="a/say &quot;hi&quot; &amp; &#x27;bye&#x27;.jpg">say &quot;hi&quot; &amp; &#x27;bye&#x27;.jpg'
        " · 40 % a word</small></figcaption></figure>\n"
    )


def test_html_is_written_while_rows_come() -> None:
    taken: list[int] = []

    def rows() -> Iterator[Row]:
        for number in range(1000):
            taken.append(number)
            yield row_of(result(f"{number}.jpg"))

    page = writer("html")(rows())
    while "10.jpg" not in next(page):
        pass
    assert len(taken) == 11


def test_html_does_without_a_picture_that_has_gone() -> None:
    assert "no preview" in rendered("html", result("gone.jpg"))


def test_failures_are_rows_with_an_error() -> None:
    assert row_of(FileResult("a.jpg", None, "broken")) == {"path": "a.jpg", "error": "broken"}


@pytest.mark.parametrize("begins", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "'=1", "''@"])
def test_no_cell_of_csv_is_a_formula_and_we_read_what_was_meant(begins: str, tmp_path: Path) -> None:
    """Spreadsheets may run programs by them: the file names of strangers must not be formulas."""
    name = f"{begins}.jpg"
    written = rendered("csv", result(name, begins, others=(begins,)), num_captions=2)
    (_, row) = csv.reader(io.StringIO(written, newline=""))
    for cell in (row[0], row[1], row[3]):
        assert cell[0] == "'"
    assert float(row[2]) == -2.77  # a number is no formula
    (tmp_path / "a.csv").write_text(written, newline="")
    assert read_predictions(tmp_path / "a.csv") == [Prediction(name, begins)]


def test_a_semicolon_in_a_name_does_not_begin_a_cell() -> None:
    """Spreadsheets in many countries take it for the delimiter, unless the text stands in quotation marks."""
    assert rendered("csv", result("a;=1+1.jpg")).splitlines()[1].startswith('"a;=1+1.jpg",')


@pytest.mark.parametrize("name", ["red\x1b[31m.jpg", "a\u2028b.jpg", "a\x85b.jpg"])
def test_text_holds_nothing_that_moves_the_cursor(name: str) -> None:
    line = rendered("text", result(name))
    assert line.count("\n") == 1
    assert line.replace("\t", "").replace("\n", "").isprintable()


def test_a_picture_without_a_caption_gets_no_text_file(tmp_path: Path) -> None:
    """An empty file would say that a person wants no caption."""
    pictures = [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    sidecars = Sidecars(pictures, extension=".txt")
    sidecars.write([row_of(result(pictures[0], "")), row_of(result(pictures[1]))])
    assert [file.name for file in tmp_path.iterdir()] == ["b.txt"]
