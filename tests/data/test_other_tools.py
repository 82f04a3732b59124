"""Captions in the files of other tools and public sets, as these write them."""

from __future__ import annotations

import io
import json
import re
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from captioner.data.captions import CaptionSet, read_captions
from captioner.data.names import KnownPictures, find_files
from captioner.data.spreadsheets import quoted
from captioner.errors import DataError
from captioner.evaluation.predictions import read_predictions


def read(folder: Path, content: Any) -> CaptionSet:
    file = folder / "captions"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_captions(file)


COCO = {"images": [{"id": 0, "file_name": "7.jpg"}], "annotations": [{"image_id": 0, "caption": "A dog"}]}
NO_NAMES = {"images": [{"id": 42}], "annotations": [{"image_id": 42, "caption": "A dog", "id": 1}]}
LLAVA = {
    "id": "1",
    "image": "a.jpg",
    "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A dog"}],
}
CHAT = {"images": ["a.jpg"], "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "A dog"}]}
TEXTCAPS = {
    "image_id": "b4",
    "image_name": "b4",
    "image_path": "train/b4.jpg",
    "caption_str": "A dog",
    "set_name": "val",
}
KOHYA = {"/sets/a": {"caption": "A dog", "tags": "dog, 1girl"}, "/sets/b": {"tags": "cat"}}
LAVIS = {"image": "val2014/a.jpg", "image_id": "coco_1", "caption": ["A dog", "Dogs"]}
HUGGING = {"image": {"path": "a.jpg", "bytes": None}, "text": "A dog"}


@pytest.mark.parametrize(
    ("content", "captions", "ids"),
    [
        ([{"path": "a.jpg", "caption": "A dog"}, {"path": "b.jpg", "error": "no"}], {"a.jpg": ["A dog"]}, {}),
        ('image,prompt\na.jpg,"A dog, art by X"\n', {"a.jpg": ["A dog, art by X"]}, {}),
        (KOHYA, {"/sets/a": ["A dog"]}, {}),
        ({"a.jpg": "A dog", "b.jpg": "A cat"}, {"a.jpg": ["A dog"], "b.jpg": ["A cat"]}, {}),
        ({"14": "A dog"}, {"14": ["A dog"]}, {}),
        ({"1_a": ["A dog", "Dogs"]}, {"1_a": ["A dog", "Dogs"]}, {}),
        ([LLAVA], {"a.jpg": ["A dog"]}, {}),
        ([CHAT], {"a.jpg": ["A dog"]}, {}),
        ([LAVIS], {"val2014/a.jpg": ["A dog", "Dogs"]}, {"val2014/a.jpg": "coco_1"}),
        (COCO, {"7.jpg": ["A dog"]}, {"7.jpg": 0}),
        (NO_NAMES, {"42": ["A dog"]}, {"42": 42}),
        ({"dataset_name": "textcaps", "data": [TEXTCAPS]}, {"train/b4.jpg": ["A dog"]}, {"train/b4.jpg": "b4"}),
        (
            "A dog\thttp://x.org/1/a.jpg\nA cat\thttps://x.org/q?b=1\n",
            {"http://x.org/1/a.jpg": ["A dog"], "https://x.org/q?b=1": ["A cat"]},
            {},
        ),
        (json.dumps(HUGGING) + "\n", {"a.jpg": ["A dog"]}, {}),
        ("image,caption_0,caption_1\na.jpg,A dog,Dogs\n", {"a.jpg": ["A dog", "Dogs"]}, {}),
        ("image_id,caption\n42,A dog\n", {"42": ["A dog"]}, {"42": "42"}),
        ("a.jpg\tA dog, big\tDogs\n", {"a.jpg": ["A dog, big", "Dogs"]}, {}),
        ('\na.jpg,A dog , big\nb.jpg,"A cat, too"\n', {"a.jpg": ["A dog , big"], "b.jpg": ["A cat, too"]}, {}),
        ("a.jpg,0,A dog, big\nb.jpg,1,A cat\n", {"a.jpg": ["A dog, big"], "b.jpg": ["A cat"]}, {}),
        ("my a.jpg A dog\nb.PNG: A cat\n", {"my a.jpg": ["A dog"], "b.PNG": ["A cat"]}, {}),
        ('path,caption,logprob\n"\'=a.jpg","\'-dog",-1\n', {"=a.jpg": ["-dog"]}, {}),
    ],
)
def test_layouts(content: Any, captions: dict[str, list[str]], ids: dict[str, int | str], tmp_path: Path) -> None:
    found = read(tmp_path, content)
    assert (found.captions, found.ids) == (captions, ids)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ([{"path": "a.jpg", "caption": "A dog"}, {"path": "b.jpg", "error": "no"}], "an error and no caption, .*: 1"),
        (
            "image\tcaption\na.jpg\t<start> A dog <end>\nb.jpg\tA cat\n",
            "marks .* 1 times, as from '<start> A dog <end>'",
        ),
        ('{"image": "a.jpg", "caption": ["two", "dogs", "run"]}\n', "lists of words .* 'two dogs run'"),
        ([{**LLAVA, "conversations": LLAVA["conversations"] * 2}], "several answers, .*: 1"),
        (
            {**COCO, "annotations": COCO["annotations"] + [{"image_id": 0, "caption": "?", "is_rejected": True}]},
            "rejected or precanned: 1",
        ),
    ],
)
def test_what_is_read_otherwise_is_said(content: Any, note: str, tmp_path: Path) -> None:
    (said,) = read(tmp_path, content).notes
    assert re.search(note, said)


def test_a_guessed_code_page_is_said(tmp_path: Path) -> None:
    (tmp_path / "captions").write_bytes("image,caption\ncafé.jpg,un café à Paris\n".encode("cp1252"))
    found = read_captions(tmp_path / "captions")
    assert found.captions == {"café.jpg": ["un café à Paris"]}
    assert found.notes == [f"{tmp_path / 'captions'}: not UTF-8, read as cp1252"]


class TestStrayQuotes:
    @pytest.mark.parametrize(
        "content",
        [
            'image,caption\n1.jpg,"Two dogs\n2.jpg,a cat\n3.jpg,it reads 5"\n4.jpg,a pig\n',
            'id,caption\n1,"Two dogs\n2,a cat\n3,it reads 5"\n4,a pig\n',
            'caption\timage\n"Two dogs\t1.jpg\na cat\t2.jpg\nit reads 5"\t3.jpg\na pig\t4.jpg\n',
            '1.jpg,"Two dogs\n2.jpg,a cat\n3.jpg,it reads 5"\n4.jpg,a pig\n',
        ],
    )
    def test_rows_stay_rows_and_the_lines_are_named(self, content: str, tmp_path: Path) -> None:
        found = read(tmp_path, content)
        assert list(found.captions.values()) == [['"Two dogs'], ["a cat"], ['it reads 5"'], ["a pig"]]
        first = 1 + (not content.startswith("1.jpg"))
        assert found.notes == [f"stray quotation marks, which are kept, in lines: {first}, {first + 2}"]

    @pytest.mark.parametrize(
        "content",
        [
            'image,caption\n1.jpg,"Two dogs\nrun, fast"\n2.jpg,a cat\n',
            'caption,image\n"Two dogs\nrun, fast",1.jpg\na cat,2.jpg\n',
        ],
    )
    def test_cells_of_several_lines_are_not_torn(self, content: str, tmp_path: Path) -> None:
        found = read(tmp_path, content)
        assert found.captions == {"1.jpg": ["Two dogs run, fast"], "2.jpg": ["a cat"]}
        assert not found.notes


def test_a_caption_with_the_delimiter_keeps_its_words_and_quotes(tmp_path: Path) -> None:
    content = 'image,caption,split\n"a,b.jpg",A dog, runs ,train\n"c.jpg",A "big, red" dog, runs,val\n'
    found = read(tmp_path, content)
    assert found.captions == {"a,b.jpg": ["A dog, runs"], "c.jpg": ['A "big, red" dog, runs']}
    assert found.splits == {"a,b.jpg": "train", "c.jpg": "val"}


@pytest.mark.parametrize("captions", ["1,2", "a.jpg,b.jpg"])
def test_a_wrong_column_is_refused(captions: str, tmp_path: Path) -> None:
    one, two = captions.split(",")
    with pytest.raises(DataError, match="all captions are numbers or names of pictures"):
        read(tmp_path, f"image,comment\nx.jpg,{one}\ny.jpg,{two}\n")


def test_captions_without_words_are_left_out_for_training_only(tmp_path: Path) -> None:
    found = read(tmp_path, "image,caption\na.jpg,A dog\na.jpg,...\nb.jpg,!\n")
    assert found.captions == {"a.jpg": ["A dog", "..."], "b.jpg": ["!"]}
    assert found.with_words().captions == {"a.jpg": ["A dog"]}
    assert found.with_words().notes == ["left out: 2 captions without words"]
    with pytest.raises(DataError, match="none of the captions has words"):
        read(tmp_path, "image,caption\na.jpg,...\n").with_words()


class TestFolders:
    def test_sidecars_of_all_kinds(self, pictures: list[Path]) -> None:
        for path, suffix in zip(pictures, (".txt", ".caption", ".jpg.txt", ".jpg.caption"), strict=False):
            path.with_suffix(suffix).write_bytes(f"{suffix} é\r\n".encode("utf-16"))
        pictures[4].with_suffix(".json").write_text('{"caption": "not read beside texts"}')
        pictures[0].with_suffix(".caption").write_text("another")
        found = read_captions(pictures[0].parent)
        assert found.captions == {
            "picture0.jpg": ["another"],
            "picture1.jpg": [".caption é"],
            "picture2.jpg": [".jpg.txt é"],
            "picture3.jpg": [".jpg.caption é"],
        }
        assert found.notes == ["pictures with a .txt and a .caption, of which the .caption counts: 1"]

    def test_img2dataset_with_json_alone(self, pictures: list[Path]) -> None:
        pictures[0].with_suffix(".json").write_text('{"url": "http://x/y.jpg", "caption": "A dog", "key": "0"}')
        assert read_captions(pictures[0].parent).captions == {"picture0.jpg": ["A dog"]}

    @pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
    def test_an_image_folder(self, name: str, pictures: list[Path]) -> None:
        folder = pictures[0].parent
        row = "file_name,text\npicture0.jpg,A dog\n"
        text = row if name.endswith("csv") else '{"file_name": "picture0.jpg", "text": "A dog"}\n'
        for part in (".", "train", "test"):
            (folder / part).mkdir(exist_ok=True)
            (folder / part / name).write_text(text)
        found = read_captions(folder)
        names = ("picture0.jpg", "test/picture0.jpg", "train/picture0.jpg")
        assert found.captions == {name: ["A dog"] for name in names}
        assert found.splits == {"test/picture0.jpg": "test", "train/picture0.jpg": "train"}

    def test_webdataset(self, tmp_path: Path) -> None:
        (tmp_path / "shards").mkdir()
        for shard in ("0.tar", "1.tar"):
            with tarfile.open(tmp_path / "shards" / shard, "w") as archive:
                for name, text in (("a.jpg", "x"), ("a.json", '{"caption": "no"}'), ("a.txt", "A dog"), ("b.txt", "x")):
                    (info := tarfile.TarInfo(name)).size = len(text)
                    archive.addfile(info, io.BytesIO(text.encode()))
        assert read_captions(tmp_path / "shards" / "0.tar").captions == {"0.tar/a.jpg": ["A dog"]}
        assert list(read_captions(tmp_path / "shards").captions) == ["0.tar/a.jpg", "1.tar/a.jpg"]
        (tmp_path / "bad.tar").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"bad\.tar: not a tar file, or a damaged one"):
            read_captions(tmp_path / "bad.tar")


class TestNames:
    def test_unicode_forms_are_the_same(self, pictures: list[Path]) -> None:
        nfc, nfd = (unicodedata.normalize(form, "é/Ünï.jpg") for form in ("NFC", "NFD"))
        folder = pictures[0].parent
        for on_disk, asked in ((nfc, nfd), (nfd, nfc)):
            pictures.pop().rename(folder / Path(on_disk).name)
            assert find_files([Path(asked).name], folder) == {Path(asked).name: folder / Path(on_disk).name}
            (folder / Path(on_disk).name).unlink()
            assert KnownPictures([on_disk]).named(f"photos/{asked}") == on_disk

    def test_a_suffix_may_be_missing(self, pictures: list[Path]) -> None:
        folder = pictures[0].parent
        assert find_files(["/sets/picture0", "picture9"], folder) == {"/sets/picture0": folder / "picture0.jpg"}
        pictures[1].rename(folder / "picture0.png")
        assert find_files(["picture0"], folder) == {}, "either may be meant"
        assert KnownPictures(["x/a"]).named("a.jpg") == "x/a"
        assert KnownPictures(["x/a.jpg"]).named("a") == "x/a.jpg"
        assert KnownPictures(["x/a.png"]).named("a.jpg") is None


class TestSpreadsheets:
    """What LibreOffice 7.4 saved of a csv of `captioner caption`: texts in quotation marks, numbers without."""

    ROWS = (
        ("=SUM(1).jpg", "A dog, a cat; and a bird"),
        ('+1, "best".jpg', "Ein Mann trägt einen Hut – „schön“"),
        ("Grüße – é.jpg", 'A "quoted" word'),
        ("it's; so.jpg", "=1+1"),
    )

    def saved(self, delimiter: str, unicode: bool = True) -> str:
        rows = [*self.ROWS, *([("写真 🎉.jpg", "水里的狗。")] if unicode else [])]
        texts = [[quoted(cell).replace('"', '""') for cell in row] for row in rows]
        lines = [f'"{name}"{delimiter}"{text}"{delimiter}-3.5' for name, text in texts]
        return "\n".join([delimiter.join(('"path"', '"caption"', '"logprob"')), *lines, ""])

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    def test_every_export_is_read_back(self, delimiter: str, encoding: str, tmp_path: Path) -> None:
        unicode = encoding != "cp1252"
        (tmp_path / "table.csv").write_bytes(self.saved(delimiter, unicode).encode(encoding))
        found = read_captions(tmp_path / "table.csv").captions
        assert found == {name: [text] for name, text in [*self.ROWS, ("写真 🎉.jpg", "水里的狗。")][: 4 + unicode]}
        assert [(one.picture, [one.caption]) for one in read_predictions(tmp_path / "table.csv")] == list(found.items())

    @pytest.mark.parametrize("start", [b"PK\x03\x04\x14\x00", b"\xd0\xcf\x11\xe0\xa1\xb1"])
    def test_a_spreadsheet_is_named_as_such(self, start: bytes, tmp_path: Path) -> None:
        (tmp_path / "table.xlsx").write_bytes(start + bytes(30))
        with pytest.raises(DataError, match=r"table\.xlsx: a spreadsheet or a zip file, not text: save .* csv"):
            read_captions(tmp_path / "table.xlsx")

    def test_utf_8_that_was_taken_for_windows_1252_is_said(self, tmp_path: Path) -> None:
        """Not even 0x81, which the code page lacks, hides it. Captions that only have such letters are left alone."""
        misread = "Ein Mann tr\u00c3\u00a4gt Schuhe in \u00c3\u0081gypten"
        (note,) = read(tmp_path, f"image,caption\na.jpg,{misread}\nb.jpg,Ein Ärgernis: Ã¤\nc.jpg,São João\n").notes
        assert "wrong characters, 1 times, such as" in note
        assert "for 'Ein Mann trägt Schuhe in Ágypten': a program took UTF-8 for Windows-1252" in note
        with pytest.raises(DataError, match="a program took its UTF-8 for Windows-1252: open it there as UTF-8"):
            read(tmp_path, '"\u00ef\u00bb\u00bf""path""","caption"\n"a.jpg","A dog"\n')
