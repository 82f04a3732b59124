"""What people type becomes a list of picture files."""

from __future__ import annotations

import codecs
import io
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from captioner.errors import CaptionerError, InputError
from captioner.pictures import find
from captioner.pictures.find import find_pictures, read_stdin


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files, and the current folder. That they are empty does not matter: nobody opens them here."""
    names = """b.jpg a.PNG z.tiff notes.txt noending .hidden.jpg ._b.jpg thumbs.jpg.tmp
        trip/d.webp trip/c.gif trip/day/e.jpeg trip/.cache/f.jpg .secret/g.jpg docs/readme.md"""
    for name in names.split():
        file = tmp_path / "album" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "album"


def found(*arguments: str, recursive: bool = False, stdin: list[str] | None = None) -> list[str]:
    return find_pictures(arguments, recursive, stdin or [])


@pytest.mark.usefixtures("album")
class TestWhatIsFound:
    @pytest.mark.parametrize("name", ["album/b.jpg", "album/notes.txt", "album/.hidden.jpg"])
    def test_a_file_is_taken_as_it_is(self, name: str) -> None:
        assert found(name) == [name]

    def test_a_missing_file_is_kept_to_be_reported(self) -> None:
        assert found("missing.jpg", "album/b.jpg") == ["missing.jpg", "album/b.jpg"]

    @pytest.mark.parametrize("folder", ["album", "album/"])
    def test_a_folder_gives_its_pictures_sorted(self, folder: str) -> None:
        assert found(folder) == ["album/a.PNG", "album/b.jpg", "album/z.tiff"]

    def test_recursive_adds_the_subfolders(self) -> None:
        assert found("album", recursive=True) == [
            "album/a.PNG",
            "album/b.jpg",
            "album/z.tiff",
            "album/trip/c.gif",
            "album/trip/d.webp",
            "album/trip/day/e.jpeg",
        ]

    @pytest.mark.parametrize(
        ("pattern", "matches"),
        [
            ("album/*.jpg", ["album/b.jpg"]),
            ("album/?.*", ["album/a.PNG", "album/b.jpg", "album/z.tiff"]),
            ("album/[ab].*", ["album/a.PNG", "album/b.jpg"]),
            ("album/*/*.gif", ["album/trip/c.gif"]),
            ("album/**/*.jp*g", ["album/b.jpg", "album/trip/day/e.jpeg"]),
            ("album//**//*.gif", ["album/trip/c.gif"]),
            ("**/e.*", ["album/trip/day/e.jpeg"]),
            ("album/**/day/**", ["album/trip/day/e.jpeg"]),
            ("*/trip/**/*.webp", ["album/trip/d.webp"]),
            ("album/.*.jpg", ["album/._b.jpg", "album/.hidden.jpg"]),  # asked for by their dot
        ],
    )
    def test_a_pattern_gives_its_files_sorted(self, pattern: str, matches: list[str]) -> None:
        assert found(pattern) == matches

    def test_an_absolute_pattern(self, album: Path) -> None:
        assert found(f"{album}/**/*.gif") == [f"{album}/trip/c.gif"]

    def test_a_name_that_looks_like_a_pattern_is_taken_literally(self, album: Path) -> None:
        names = ["album/a[1].jpg", "album/what?.jpg", "album/[b].jpg"]
        for name in names:
            Path(name).touch()
        assert found(*names) == names
        assert found("album/b*.jpg") == ["album/b.jpg"]
        (album / "x[1]" / "deep").mkdir(parents=True)
        (album / "x[1]" / "deep" / "p.jpg").touch()
        assert found("album/x[1]", recursive=True) == found("album/**/p.jpg") == ["album/x[1]/deep/p.jpg"]

    def test_a_list_of_paths_from_stdin(self) -> None:
        lines = ["album/b.jpg\n", "missing one.jpg\r\n", "\n", "  spaces .jpg"]
        assert found("-", stdin=lines) == ["album/b.jpg", "missing one.jpg", "  spaces .jpg"]

    def test_the_order_of_arguments_is_kept_and_each_path_comes_once(self) -> None:
        assert found("album/z.tiff", "-", "album", "album/b.jpg", stdin=["x.jpg", "album/z.tiff", "x.jpg"]) == [
            "album/z.tiff",
            "x.jpg",
            "album/a.PNG",
            "album/b.jpg",
        ]

    def test_folders_named_like_pictures_are_no_pictures(self, album: Path) -> None:
        (album / "folder.jpg").mkdir()
        assert "album/folder.jpg" not in found("album") + found("album/*")

    def test_names_that_are_not_text(self, album: Path) -> None:
        name = os.fsdecode(b"album/caf\xe9.jpg")
        Path(name).touch()
        assert name in found("album")

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("arguments", [("album", True), ("album/**/*.jpeg", False), ("**/*.jpeg", False)])
    def test_links_that_lead_back_are_not_followed(self, arguments: tuple[str, bool], album: Path) -> None:
        """Two of them double the ways at every turn: `glob` would never come to an end."""
        for name in ("up", "again"):
            (album / "trip" / "day" / name).symlink_to(album, target_is_directory=True)
        pictures = found(arguments[0], recursive=arguments[1])
        assert [path for path in pictures if path.endswith(".jpeg")] == ["album/trip/day/e.jpeg"]

    def test_a_linked_folder_is_followed_where_it_is_named(self, album: Path) -> None:
        Path("link").symlink_to(album, target_is_directory=True)
        assert found("link/b.jpg", "link") == ["link/b.jpg", "link/a.PNG", "link/z.tiff"]
        assert found("link/**/*.gif") == found("l*/**/*.gif") == ["link/trip/c.gif"]

    def test_a_link_to_nothing_is_kept_to_be_reported(self, album: Path) -> None:
        (album / "gone.jpg").symlink_to("nowhere")
        assert "album/gone.jpg" in found("album")


@pytest.mark.usefixtures("album")
class TestNothingFound:
    @pytest.mark.parametrize(
        ("arguments", "stdin", "message"),
        [
            ([], [], "no pictures were given"),
            (["-"], [], "no pictures were given"),
            (["-"], ["\n", "\r\n"], "no pictures were given"),
            ([""], [], "one of the paths is empty: give a file, a folder or a pattern"),
            (["album/b.jpg", ""], [], "one of the paths is empty"),
            (["album/docs"], [], r"album/docs: no pictures in this folder or its subfolders$"),
            (["above"], [], r"above: no pictures in this folder itself; 6 in its subfolders: add recursive \(-r\)$"),
            (["https://example.com/a.jpg"], [], "https://example.com/a.jpg: is an address, and captioner fetches noth"),
            (["file:///home/a.jpg"], [], "is an address"),
            (["album/*.bmp"], [], r"album/\*\.bmp: no file matches this pattern"),
            (["album/doc*"], [], "no file matches"),
            (["album/**/.nothing"], [], "no file matches"),
            (["album/b.jpg", "album/*.bmp"], [], "no file matches"),
        ],
    )
    def test_the_message_says_where(self, arguments: list[str], stdin: list[str], message: str, album: Path) -> None:
        Path("above").mkdir()
        album.rename("above/album")
        Path("album").symlink_to("above/album")
        with pytest.raises(InputError, match=message) as caught:
            find_pictures(arguments, stdin=stdin)
        assert isinstance(caught.value, CaptionerError)

    def test_recursive_is_not_advised_twice(self) -> None:
        with pytest.raises(InputError, match=r"no pictures in this folder or its subfolders$"):
            found("album/docs", recursive=True)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_without_permission_is_an_error(self, album: Path) -> None:
        (album / "trip").chmod(0)
        with pytest.raises(OSError, match="Permission denied"):
            found("album", recursive=True)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_on_stdin_in_any_encoding_with_any_line_ends(encoding: str, end: str) -> None:
    content = f"a b.jpg{end}{end}写真.png{end}".encode(encoding)
    assert read_stdin(io.BytesIO(content)) == ["a b.jpg", "写真.png"]


def test_names_on_stdin_that_are_not_text_keep_their_bytes_where_there_is_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = b"caf\xe9.jpg\nP5\nBMW.jpg"
    assert read_stdin(io.BytesIO(listed)) == ["caf\xe9.jpg", "P5", "BMW.jpg"]  # the Windows code page
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert read_stdin(io.BytesIO(listed)) == [os.fsdecode(b"caf\xe9.jpg"), "P5", "BMW.jpg"]


def test_a_list_on_stdin_that_is_not_in_the_encoding_of_its_mark_keeps_its_bytes() -> None:
    content = codecs.BOM_UTF16_LE + b"a"
    assert read_stdin(io.BytesIO(content)) == [os.fsdecode(content)]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
def test_a_picture_on_stdin_is_told_from_a_list(format: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "white").save(file, format)
    file.seek(0)
    assert read_stdin(file) == file.getvalue()


@pytest.mark.parametrize("rawpy", [True, False])
def test_raw_files_and_videos(rawpy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "available", lambda: rawpy)
    for name in ("a.jpg", "a.nef", "b.NEF", "c.dng", "d.heic", "d.MOV", "e.mp4", "f.avi", "._g.mov", "sub/h.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    passed_over: Counter[str] = Counter()
    assert find_pictures(["."], passed_over=passed_over) == [
        *["./a.jpg", *["./b.NEF", "./c.dng"][: 2 * rawpy], "./d.heic"]
    ]
    assert passed_over == ({"video": 2} if rawpy else {"video": 2, "raw file": 2})
    assert found("a.nef", ".")[:2] == ["a.nef", "./a.jpg"]
    assert found("?.[nN]*") == ["a.nef", "b.NEF"]
    for name in ("a.jpg", "d.heic"):
        (tmp_path / name).unlink()
    if not rawpy:
        with pytest.raises(InputError, match=r"3 raw files, for which rawpy is missing: pip install .*\[raw\]"):
            found(".")
