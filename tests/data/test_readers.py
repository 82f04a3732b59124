"""Captions of every common layout: read whole, or refused in one line."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captioner.data.captions import CaptionSet, read_captions
from captioner.errors import CaptionerError, DataError

# Captions as people write them: what files are torn at.
ODD = (
    "A dog , a cat and two men .",
    'The sign says "STOP" , in red',
    "A man\tand his dog",
    "👩‍👩‍👧 a family 🏖️ at the beach",
    "一个穿着泳装的女人躺在海水里。",
    "L'été : « deux » chiens; un café #1 | 50 %",
)
EXPECTED = {"1000268201_693b08cb0e.jpg": list(ODD), "my dog #2.jpg": ["A dog runs .", "Dogs"]}

Content = str | bytes


def rows() -> list[tuple[str, int, str]]:
    return [(name, number, text) for name, texts in EXPECTED.items() for number, text in enumerate(texts)]


def csv_cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def token() -> str:
    return "".join(f"{name}#{number}\t{text}\n" for name, number, text in rows())


def chinese() -> str:
    return "".join(f"{name}#zhc#{number} {text}\n" for name, number, text in rows())


def kaggle() -> str:
    """Kaggle's captions.txt in its bad form: nothing is quoted."""
    return "image,caption\n" + "".join(f"{name},{text}\n" for name, _, text in rows())


def results() -> str:
    lines = "".join(f"{name}| {number}| {text}\n" for name, number, text in rows())
    return "image_name| comment_number| comment\n" + lines


def quoted() -> str:
    return "file_name,caption,split\n" + "".join(f"{csv_cell(name)},{csv_cell(text)},\n" for name, _, text in rows())


def tsv() -> str:
    return "Description\tImage Name\n" + "".join(f"{text}\t{name}\n" for name, _, text in rows())


def semicolons() -> str:
    return "photo;text\n" + "".join(f"{name};{csv_cell(text)}\n" for name, _, text in rows())


def jsonl() -> str:
    return "".join(json.dumps({"image": name, "caption": text}, ensure_ascii=False) + "\n" for name, _, text in rows())


def jsonl_lists() -> str:
    return "".join(json.dumps({"file_name": name, "text": texts}) + "\n" for name, texts in EXPECTED.items())


def json_list() -> str:
    return json.dumps([{"image": name, "caption": texts} for name, texts in EXPECTED.items()], indent=1)


def karpathy() -> str:
    images = [
        {
            "filename": name,
            "imgid": number,
            "split": "train",
            "sentids": [0],
            "sentences": [{"raw": text, "tokens": text.split(), "sentid": 0} for text in texts],
        }
        for number, (name, texts) in enumerate(EXPECTED.items())
    ]
    return json.dumps({"images": images, "dataset": "flickr8k"})


def coco() -> str:
    names = list(EXPECTED)
    content = {
        "info": {"year": 2014},
        "images": [{"id": 9 + number, "file_name": name, "height": 480} for number, name in enumerate(names)],
        "licenses": [],
        "annotations": [
            {"image_id": 9 + names.index(name), "id": number, "caption": text} for name, number, text in rows()
        ],
    }
    return json.dumps(content)


ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")

FORMS: dict[str, tuple[Callable[[], str], str]] = {
    "token": (token, "NAME.jpg#0<TAB>caption lines"),
    "chinese": (chinese, "NAME.jpg#zhc#0 caption lines"),
    "kaggle": (kaggle, "comma-separated table"),
    "results": (results, "NAME.jpg| 0| caption lines"),
    "quoted": (quoted, "comma-separated table"),
    "tsv": (tsv, "tab-separated table"),
    "semicolons": (semicolons, "semicolon-separated table"),
    "jsonl": (jsonl, "JSON lines"),
    "jsonl lists": (jsonl_lists, "JSON lines"),
    "json list": (json_list, "JSON list"),
    "karpathy": (karpathy, "Karpathy split JSON"),
    "coco": (coco, "COCO captions JSON"),
}


def read(folder: Path, content: Content) -> CaptionSet:
    file = folder / "captions"  # no extension: the content says what it is
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_captions(file)


@pytest.mark.parametrize("dressed", ["plain", "BOM", "CRLF", "CR", "no last line end", "blank lines", *ENCODINGS])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_through_whole(form: str, dressed: str, tmp_path: Path) -> None:
    make, described = FORMS[form]
    text = make()
    content: Content = {
        "plain": text,
        "BOM": "\ufeff" + text,
        "CRLF": text.replace("\n", "\r\n"),
        "no last line end": text.rstrip("\n"),
        "blank lines": "\n \n" + text + "\n\n",
        "CR": text.replace("\n", "\r"),
        **{name: text.encode(name) for name in ENCODINGS},
    }[dressed]
    found = read(tmp_path, content)
    assert found.captions == EXPECTED
    assert list(found.captions) == list(EXPECTED), "in the order of the file"
    assert (found.form, found.empty, found.path) == (described, 0, tmp_path / "captions")
    assert set(found.splits.values()) == ({"train"} if form == "karpathy" else set())


class TestLines:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("a.jpg#0\tone\ttwo #3\tthree\n", {"a.jpg": ["one\ttwo #3\tthree"]}),
            ("my #1 dog#2.jpg#0\tone\n", {"my #1 dog#2.jpg": ["one"]}),
            ("sub folder/ä.jpg#12\t  one  \n", {"sub folder/ä.jpg": ["one"]}),
            (
                "a.jpg#0\tone\u2028two\x0bthree\x85four\nb.jpg#0\tfive\n",
                {"a.jpg": ["one\u2028two\x0bthree\x85four"], "b.jpg": ["five"]},
            ),
            ("a.jpg#0\tone\n\ufeffb.jpg#0\ttwo\n", {"a.jpg": ["one"], "b.jpg": ["two"]}),
            ("a.jpg#enc#0 one\na.jpg#enc#1\ttwo\n", {"a.jpg": ["one", "two"]}),
        ],
        ids=["tabs", "# in names", "spaces", "odd line ends", "files put together", "other languages"],
    )
    def test_what_files_of_the_wild_look_like(
        self, content: str, expected: dict[str, list[str]], tmp_path: Path
    ) -> None:
        assert read(tmp_path, content).captions == expected

    def test_the_line_of_flickr30k_on_kaggle_that_lacks_a_bar(self, tmp_path: Path) -> None:
        content = "image_name| comment_number| comment\n2199200615.jpg| 3| A dog .\n2199200615.jpg| 4   A dog runs .\n"
        assert read(tmp_path, content).captions == {"2199200615.jpg": ["A dog .", "A dog runs ."]}


class TestTables:
    def test_a_quoted_cell_may_hold_line_ends_and_is_one_line_then(self, tmp_path: Path) -> None:
        content = 'image,caption\na.jpg,"two\r\nlines, ""both"""\nb.jpg,one\n'
        assert read(tmp_path, content).captions == {"a.jpg": ['two lines, "both"'], "b.jpg": ["one"]}

    def test_a_stray_quotation_mark_swallows_nothing(self, tmp_path: Path) -> None:
        lines = [f'{number}.jpg,"Look number {number}\n' for number in range(200)]
        lines[7] = '7.jpg,"Hello", said he\n'
        found = read(tmp_path, "image,caption\n" + "".join(lines) + '200.jpg,"quoted"\n').captions
        assert len(found) == 201
        assert found["6.jpg"] == ['"Look number 6']
        assert found["7.jpg"] == ['"Hello", said he']
        assert found["200.jpg"] == ["quoted"]

    def test_columns_are_found_by_name_and_others_passed_over(self, tmp_path: Path) -> None:
        content = "id,Caption,Split,Image Path\n1,A dog, runs,restval,a.jpg\n2,A cat,dev,b.jpg\n3,A hen,,c.jpg\n"
        found = read(tmp_path, content)
        assert found.captions == {"a.jpg": ["A dog, runs"], "b.jpg": ["A cat"], "c.jpg": ["A hen"]}
        assert found.splits == {"a.jpg": "train", "b.jpg": "val"}

    def test_a_line_with_too_few_columns(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"line 3 has fewer columns than the first line: 'b\.jpg'"):
            read(tmp_path, "image,caption\na.jpg,one\nb.jpg\n")


class TestJson:
    def test_karpathys_splits(self, tmp_path: Path) -> None:
        images = [
            {"filename": f"{split}.jpg", "filepath": "val2014", "split": split, "sentences": [{"raw": "A dog"}]}
            for split in ("train", "restval", "val", "test")
        ]
        found = read(tmp_path, json.dumps({"images": images}))
        assert list(found.splits.items()) == [
            (f"val2014/{name}.jpg", split)
            for name, split in (("train", "train"), ("restval", "train"), ("val", "val"), ("test", "test"))
        ]

    def test_tokens_do_where_there_is_no_raw_sentence(self, tmp_path: Path) -> None:
        images = [{"filename": "a.jpg", "split": "train", "sentences": [{"tokens": ["a", "dog"]}]}]
        assert read(tmp_path, json.dumps({"images": images})).captions == {"a.jpg": ["a dog"]}

    def test_pictures_of_coco_without_captions_are_left_out(self, tmp_path: Path) -> None:
        images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
        content = {"images": images, "annotations": [{"image_id": 2, "caption": "A dog.\n"}]}
        assert read(tmp_path, json.dumps(content)).captions == {"b.jpg": ["A dog."]}

    def test_half_a_character_is_replaced(self, tmp_path: Path) -> None:
        content = r'{"image": "a.jpg", "caption": "\ud83d a \ud83d\udc36"}'
        assert read(tmp_path, content).captions == {"a.jpg": ["\ufffd a 🐶"]}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"images": [{"file_name": "a.jpg"}], "annotations": []}, "entry 1 of 'images' needs an 'id'"),
            (
                {"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []},
                "id 1 stands for 'a' and 'b'",
            ),
            (
                {"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": []}]},
                "entry 1 of 'annotations' needs an 'image_id' and a 'caption'",
            ),
            (
                {"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 2, "caption": "x"}]},
                "image_id 2, which is not in 'images'",
            ),
            ({"images": [{"id": 1, "file_name": "a"}], "annotations": []}, "the captions file is empty"),
            ({"images": [{"id": 1, "file_name": "a"}]}, "entry 1 of 'images' needs a 'filename' and 'sentences'"),
            ({"images": [{"filename": "a", "sentences": [{"id": 1}]}]}, "neither 'raw' nor 'tokens'"),
            ([{"image_id": 1, "caption": "a dog"}], "entry 1 needs a picture's name"),
            ({"a.jpg": 7}, "line 1 needs a picture's name"),
            ({"image": "a.jpg", "caption": 7}, "line 1 needs a picture's name"),
            ([], "the captions file is empty"),
            (7, "in no known layout"),
        ],
    )
    def test_what_is_wrong_is_said(self, content: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=re.escape(message)):
            read(tmp_path, json.dumps(content))

    def test_lines_that_are_no_json(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="line 2 is not JSON"):
            read(tmp_path, '{"image": "a.jpg", "caption": "one"}\n{"image": \n')
        with pytest.raises(DataError, match="neither JSON nor JSON lines"):
            read(tmp_path, '{"image": \n')
        with pytest.raises(DataError, match="neither JSON nor JSON lines"):
            read(tmp_path, "[" * 100_000)
        with pytest.raises(DataError, match="there is more after the JSON document in the first line"):
            read(tmp_path, '["a.jpg", "one"]\n["b.jpg", "two"]\n')


class TestFolder:
    def test_a_text_beside_each_picture(self, pictures: list[Path]) -> None:
        folder = pictures[0].parent
        (folder / "sub").mkdir()
        pictures[3].rename(folder / "sub/x.jpg")
        (folder / "sub/x.txt").write_text("\ufeff一只狗\r\n", encoding="utf-8")
        (folder / "picture1.txt").write_text("a dog, runs\n\nthe dog\n")
        (folder / "picture2.txt").write_text("")
        (folder / "notes.txt").write_text("of no picture")
        found = read_captions(folder)
        assert found.captions == {"picture1.jpg": ["a dog, runs", "the dog"], "sub/x.jpg": ["一只狗"]}
        assert found.form == "folder with a .txt beside each picture"

    def test_a_folder_without_any(self, pictures: list[Path], tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none of the pictures in this folder has its captions in a \.txt"):
            read_captions(pictures[0].parent)
        (tmp_path / "empty").mkdir()
        with pytest.raises(CaptionerError, match="no pictures in this folder"):
            read_captions(tmp_path / "empty")

    def test_an_error_names_the_text(self, pictures: list[Path]) -> None:
        pictures[0].with_suffix(".txt").write_bytes(b"caf\x81")
        with pytest.raises(DataError, match=r"picture0\.txt: not a text file in UTF-8"):
            read_captions(pictures[0].parent)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("a.jpg#0\tone\na.jpg two\n", r"line 2 is not in the form 'NAME\.jpg#0<TAB>caption': 'a\.jpg two'"),
            ("\n\nhello,world\n", r"the first line is 'hello,world'; known are .*JSON lines.*COCO.*Karpathy"),
            ("a.jpg\tone\nb dog\ttwo\n", "line 2 does not name a picture in column 1, as the first line does: 'b dog"),
            ("a.jpg#x\tone\n", "the first line is"),
            ("#0\tone\n", "the first line is"),
            ("x" * 10_000, "the first line is 'x{80}'; known"),
            ("a.jpg#0\tone\n" + "x" * 10_000, "line 2 .{,200}$"),
            ("a\x1b[31m\n", re.escape(r"'a\x1b[31m'")),
            (b"a.jpg#0\tcaf\x81\n", r"not a text file in UTF-8 \(line 1 has b'\\x81' at byte 11\): save it as UTF-8"),
            (b"\xff\xfea", "not a text file in UTF-16"),
            ("", "the captions file is empty"),
            ("\r\n \n", "the captions file is empty"),
            ("image,caption\n", "the captions file is empty"),
            ("image,caption\na.jpg, \nb.jpg,\n", "every caption is empty"),
            ("image,caption\n,one\n", "caption 1 has no picture name: 'one'"),
            ('image,caption\n"a\nb.jpg",one\n', r"caption 1 has a picture name of several lines, 'a\\nb\.jpg'"),
        ],
    )
    def test_errors_name_the_file_and_what_is_wrong(self, content: Content, message: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=message) as caught:
            read(tmp_path, content)
        assert str(caught.value).startswith(f"{tmp_path / 'captions'}: ")
        assert str(caught.value).isprintable()

    def test_a_file_of_a_short_name_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("a").write_text("image,caption\nx.jpg,\n")
        with pytest.raises(DataError, match=r"^a: every caption is empty"):
            read_captions(Path("a"))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such captions file"):
            read_captions(tmp_path / "missing.txt")


@pytest.mark.parametrize(
    "content",
    [
        "a.jpg#0\tone\na.jpg#1\t \nb.jpg#0\t\n",
        "image,caption\na.jpg,one\na.jpg, \nb.jpg,\n",
        '{"image": "a.jpg", "caption": ["one", ""]}\n{"image": "b.jpg", "caption": null}\n',
    ],
)
def test_empty_captions_are_left_out_and_counted(content: str, tmp_path: Path) -> None:
    found = read(tmp_path, content)
    assert (found.captions, found.empty) == ({"a.jpg": ["one"]}, 2)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The file as it might be damaged: cut, doubled, joined with others, with other bytes in it."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.choice((1, 2, 10, 100, 1000)))
        piece = rng.choice(
            (
                *(b"", b"", b'"', b",", b"\t", b"#", b"|", b"\n", b"\r", b"\0", b"\\", b"{", b"}", b"[", b"]", b":"),
                *(b"null", b"1e999", b"-1", b"true", b'"\\ud800"', b"\xff", b"\xef\xbb\xbf", b"\xff\xfe"),
                *("\u2028".encode(), "狗".encode(), content[end : end + 50], content[:50], rng.randbytes(8)),
            )
        )
        content = content[:start] + piece + content[end if rng.random() < 0.7 else start :]
    return content


def test_damaged_files_give_captions_or_one_clear_line(tmp_path: Path) -> None:
    rng = random.Random(0)
    originals = [make().encode() for make, _ in FORMS.values()]
    complaints = []
    for number in range(2000):
        try:
            found = read(tmp_path, mutated(originals[number % len(originals)], rng))
        except CaptionerError as error:
            complaints.append(str(error))
            continue
        assert found.captions
        for name, texts in found.captions.items():
            assert name.encode()
            assert texts
            assert all(text and "\n" not in name + text and text.encode() for text in texts)
    assert 100 < len(complaints) < 1900
    for complaint in complaints:
        assert complaint.startswith(f"{tmp_path / 'captions'}: ")
        assert "\n" not in complaint
        assert len(complaint) < 1000
