import json
from pathlib import Path
from typing import Any

import pytest

from captioner import bulk
from captioner.bulk.journal import Journal
from captioner.errors import OutputError

SETTINGS: dict[str, Any] = {"journal": 1, "batch_size": 2}


def row(name: str, caption: str) -> dict[str, Any]:
    return {"path": name, "caption": caption, "logprob": -1.5, "words": [], "end_probability": None}


def begun(path: Path, settings: dict[str, Any], resume: bool) -> Journal:
    journal = Journal(path, resume)
    journal.begin(settings)
    return journal


def filled(path: Path, names: list[str]) -> None:
    journal = begun(path, SETTINGS, resume=False)
    journal.append(row(name, f"of {name}") for name in names)
    journal.close()


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    filled(tmp_path / "j", ["b", "a\n", "c"])
    journal = begun(tmp_path / "j", SETTINGS, resume=True)
    journal.append([row("ä", "of ä")])
    assert [found["caption"] for found in journal.rows(["ä", "c", "not there", "a\n"])] == ["of ä", "of c", "of a\n"]


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_torn_last_line_is_dropped_and_written_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j"
    filled(path, ["a", "b"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    journal = begun(path, SETTINGS, resume=True)
    assert journal.captioned("a")
    assert not journal.captioned("b")
    journal.append([row("b", "of b")])
    journal.close()
    assert path.read_bytes() == whole


def test_a_failed_picture_is_not_captioned_until_it_succeeds(tmp_path: Path) -> None:
    journal = begun(tmp_path / "j", SETTINGS, resume=False)
    journal.append([{"path": "a", "error": "broken"}])
    assert not journal.captioned("a")
    assert list(journal.rows(["a"])) == []
    journal.append([row("a", "mended")])
    assert [found["caption"] for found in journal.rows(["a"])] == ["mended"]


def test_a_picture_that_fails_when_its_batch_is_done_again_keeps_its_caption(tmp_path: Path) -> None:
    filled(tmp_path / "j", ["a", "b"])
    journal = begun(tmp_path / "j", SETTINGS, resume=True)
    journal.append([{"path": "a", "error": "gone"}])
    journal.close()
    for found in (journal, Journal(tmp_path / "j", resume=True)):
        assert [row["caption"] for row in found.rows(["a", "b"])] == ["of a", "of b"]


def test_a_journal_in_the_way_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "j", ["a"])
    with pytest.raises(OutputError, match="--resume"):
        Journal(tmp_path / "j", resume=False)


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
        Journal(tmp_path / "j", resume=True)
    assert (tmp_path / "j").read_text() == content


def test_nothing_is_made_or_changed_before_it_begins(tmp_path: Path) -> None:
    Journal(tmp_path / "j", resume=True)
    assert not (tmp_path / "j").exists()
    filled(tmp_path / "j", ["a"])
    (tmp_path / "j").write_bytes(torn := (tmp_path / "j").read_bytes()[:-3])
    Journal(tmp_path / "j", resume=True)
    assert (tmp_path / "j").read_bytes() == torn


def test_the_journal_of_a_run_that_began_meanwhile_is_not_touched(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", resume=True)
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
        Journal(tmp_path / "j", resume=True)


def test_rows_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    lines = [SETTINGS, row("ä", "of ä"), {"path": "b", "error": "broken"}, row("c", "of c")]
    (tmp_path / "j").write_text("".join(json.dumps(line) + "\n" for line in lines))
    journal = begun(tmp_path / "j", SETTINGS, resume=True)
    journal.append([row("d", "of d"), {"path": "e", "error": "gone"}])
    journal.close()
    for found in (journal, Journal(tmp_path / "j", resume=True)):
        assert list(found.rows(["ä", "b", "c", "d", "e"])) == [row("ä", "of ä"), row("c", "of c"), row("d", "of d")]
        assert len(found.rows(["ä", "b", "c", "d", "e"])) == 3
        assert found.all_captioned(["ä", "c", "d"])
        assert not found.all_captioned(["ä", "b"])


def test_only_a_row_that_was_changed_is_looked_at_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming very many rows would take long otherwise."""
    filled(tmp_path / "j", [f"{number}" for number in range(50)])
    content, looked = (tmp_path / "j").read_bytes(), list[Any]()
    monkeypatch.setattr(bulk.journal, "_check", looked.append)
    Journal(tmp_path / "j", resume=True)
    assert looked == []
    (tmp_path / "j").write_bytes(content.replace(b"of 7", b"of 8"))
    journal = Journal(tmp_path / "j", resume=True)
    assert [found["caption"] for found in looked] == ["of 8"]
    assert journal.captioned("7")
