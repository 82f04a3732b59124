import json
from pathlib import Path
from typing import Any

import pytest

from captioner import bulk
from captioner.bulk.journal import Journal
from captioner.bulk.on_disk import distinct
from captioner.errors import OutputError

SETTINGS: dict[str, Any] = {"journal": 1, "batch_size": 2}


def row(name: str, caption: str) -> dict[str, Any]:
    return {"path": name, "caption": caption, "logprob": -1.5, "words": [], "end_probability": None}


def opened(path: Path, names: str = "ab", resume: bool = True) -> Journal:
    return Journal(path, resume, distinct(names))


def begun(path: Path, settings: dict[str, Any], resume: bool, names: str = "ab") -> Journal:
    journal = opened(path, names, resume)
    journal.begin(settings)
    return journal


def filled(path: Path, names: list[str]) -> None:
    journal = begun(path, SETTINGS, resume=False)
    journal.append(row(name, f"of {name}") for name in names)
    journal.close()


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    filled(tmp_path / "j", ["b", "\n", "c"])
    journal = begun(tmp_path / "j", SETTINGS, resume=True, names="äcx\n")
    journal.append([row("ä", "of ä")])
    assert [found["caption"] for found in journal.rows()] == ["of ä", "of c", "of \n"]


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_torn_last_line_is_dropped_and_written_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j"
    filled(path, ["a", "b"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    journal = begun(path, SETTINGS, resume=True)
    assert journal.lacking(1) == [0, 1]
    journal.append([row("b", "of b")])
    journal.close()
    assert path.read_bytes() == whole


def test_a_failed_picture_is_not_captioned_until_it_succeeds(tmp_path: Path) -> None:
    journal = begun(tmp_path / "j", SETTINGS, resume=False)
    journal.append([{"path": "a", "error": "broken"}])
    assert journal.lacking(2) == [2]
    assert list(journal.rows()) == []
    journal.append([row("a", "mended")])
    assert [found["caption"] for found in journal.rows()] == ["mended"]


def test_a_picture_that_fails_when_its_batch_is_done_again_keeps_its_caption(tmp_path: Path) -> None:
    filled(tmp_path / "j", ["a", "b"])
    journal = begun(tmp_path / "j", SETTINGS, resume=True)
    journal.append([{"path": "a", "error": "gone"}])
    journal.close()
    for found in (journal, opened(tmp_path / "j")):
        assert [row["caption"] for row in found.rows()] == ["of a", "of b"]


def test_a_journal_in_the_way_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "j", ["a"])
    with pytest.raises(OutputError, match="--resume"):
        opened(tmp_path / "j", resume=False)


def test_a_journal_of_other_settings_is_refused_and_kept(tmp_path: Path) -> None:
    filled(tmp_path / "j", ["a"])
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(OutputError, match="batch_size 2, not 3"):
        begun(tmp_path / "j", {**SETTINGS, "batch_size": 3}, resume=True)
    assert (tmp_path / "j").read_bytes() == before


@pytest.mark.parametrize("content", ["hello\n", "[1]\n", '{"journal": 1, "batch_size": 2}\n[]\n', "3\n"])
def test_another_file_is_not_taken_for_a_journal(tmp_path: Path, content: str) -> None:
    (tmp_path / "j").write_text(content)
    with pytest.raises(OutputError):
        opened(tmp_path / "j")
    assert (tmp_path / "j").read_text() == content


def test_nothing_is_made_or_changed_before_it_begins(tmp_path: Path) -> None:
    opened(tmp_path / "j")
    assert not (tmp_path / "j").exists()
    filled(tmp_path / "j", ["a"])
    (tmp_path / "j").write_bytes(torn := (tmp_path / "j").read_bytes()[:-3])
    opened(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == torn


def test_the_journal_of_a_run_that_began_meanwhile_is_not_touched(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j")
    filled(tmp_path / "j", ["a"])
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(FileExistsError):
        journal.begin(SETTINGS)
    assert (tmp_path / "j").read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"path": 3, "error": "x"}',
        '{"path": "b", "caption": 7, "logprob": -1.0, "words": [], "end_probability": null}',
        '{"path": "b", "caption": "x", "logprob": 1e999, "words": [], "end_probability": null}',
        '{"path": "b", "caption": "x", "logprob": NaN, "words": [], "end_probability": null}',
        '{"path": "b", "caption": "x", "logprob": -1.0, "words": 3, "end_probability": null}',
        '{"path": "b", "caption": "x", "logprob": -1.0, "words": []}',
        '{"path": "b", "caption": "\\ud83d", "logprob": -1.0, "words": [], "end_probability": null}',
        '{"path": "b", "caption": "x", "logprob": -1.0, "words": [], "end_probability": null, "alternatives": [{}]}',
    ],
)
def test_a_journal_that_was_changed_is_refused(tmp_path: Path, line: str) -> None:
    """What formats could not render must not be found only when all pictures are captioned."""
    filled(tmp_path / "j", ["a"])
    with (tmp_path / "j").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(OutputError, match="not a journal of captioner"):
        opened(tmp_path / "j")


def test_rows_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    lines = [SETTINGS, row("ä", "of ä"), {"path": "b", "error": "broken"}, row("c", "of c")]
    (tmp_path / "j").write_text("".join(json.dumps(line) + "\n" for line in lines))
    journal = begun(tmp_path / "j", SETTINGS, resume=True, names="äbcde")
    journal.append([row("d", "of d"), {"path": "e", "error": "gone"}])
    journal.close()
    for found in (journal, opened(tmp_path / "j", "äbcde")):
        assert list(found.rows()) == [row("ä", "of ä"), row("c", "of c"), row("d", "of d")]
        assert len(found.rows()) == 3
        assert found.lacking(2) == [2, 0, 1]


def test_only_a_row_that_was_changed_is_looked_at_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming very many rows would take long otherwise."""
    filled(tmp_path / "j", [f"{number}" for number in range(50)])
    content, looked = (tmp_path / "j").read_bytes(), list[Any]()
    monkeypatch.setattr(bulk.journal, "_check", looked.append)
    opened(tmp_path / "j")
    assert looked == []
    (tmp_path / "j").write_bytes(content.replace(b"of 7", b"of 8"))
    journal = opened(tmp_path / "j", "7")
    assert [found["caption"] for found in looked] == ["of 8"]
    assert journal.lacking(1) == [0]
