"""Texts that are kept on disk."""

import sqlite3

import pytest
from memory import forget_peak, peak_memory

from captioner.bulk.on_disk import OnDisk, distinct
from captioner.errors import OutputError
from captioner.inference.parallel import in_batches


def test_it_is_a_dict_in_the_order_in_which_texts_came_first() -> None:
    texts, plain = OnDisk(), dict[str, object]()
    for number, text in enumerate(["b", "a\n", "caf\udce9", "写真", "b", "", "\ud83d"]):
        texts.put([(text, number)])
        plain[text] = number
    assert list(texts.items()) == list(plain.items())
    assert len(texts) == 6
    assert "b" in texts
    assert "c" not in texts
    assert texts.get("c") is None
    texts.remove(["b"])
    assert next(iter(texts)) == "a\n"
    with pytest.raises(KeyError):
        texts["b"]


def test_none_takes_the_place_of_no_value() -> None:
    texts = OnDisk()
    texts.put([("a", "1"), ("b", None), ("a", None), ("b", 2)])
    assert dict(texts) == {"a": "1", "b": 2}


def test_very_many_at_once_come_in_one_by_one() -> None:
    texts, plain = OnDisk(), dict[str, object]()
    items = [(f"{number % 130}", number) for number in range(301)]  # some stand in one statement twice
    texts.put(items)
    plain.update(items)
    assert list(texts.items()) == list(plain.items())


def test_only_texts_that_are_there_are_filled() -> None:
    texts = distinct(["b", "a", "caf\udce9"])
    texts.fill([("a", 7), ("not there", 1), ("caf\udce9", "x\udce9")])
    assert list(texts) == ["b", "a", "caf\udce9"]
    assert list(texts.in_order()) == [None, 7, "x\udce9"]
    assert list(texts.unset()) == ["b"]


def test_texts_may_go_and_values_may_change_while_others_are_gone_through() -> None:
    texts, seen = distinct(f"{number}" for number in range(5000)), list[str]()
    for some in in_batches(texts.unset(), 100):
        seen += some
        texts.fill((text, 1) for text in some[:60])
        texts.remove(some[50:90])
    assert seen == [f"{number}" for number in range(5000)]
    assert list(texts) == [text for text in seen if not 50 <= int(text) % 100 < 90]
    assert len(list(texts.unset())) == 500
    texts.remove([])
    assert len(texts) == 3000


def test_values_need_not_be_valid_text_either() -> None:
    texts = OnDisk()
    texts.put([("a", "caf\udce9.jpg"), ("b", "\ud83d")])
    assert dict(texts) == {"a": "caf\udce9.jpg", "b": "\ud83d"}


def test_an_error_that_is_not_of_the_disk_is_told_as_it_is() -> None:
    with pytest.raises(sqlite3.OperationalError, match="syntax"):
        OnDisk()._do("SELEKT")


def test_each_text_comes_once() -> None:
    assert list(distinct(["b", "a", "b"])) == ["b", "a"]
    assert not distinct([])
    assert [text for text in distinct(["a", "b"])] == ["a", "b"]  # noqa: C416  # nothing else holds it meanwhile


def test_an_error_of_what_gives_texts_comes_out() -> None:
    def texts() -> object:
        yield "a"
        raise OutputError("of theirs")

    with pytest.raises(OutputError, match="of theirs"):
        distinct(texts())  # type: ignore[arg-type]


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = OnDisk()

    class Full:
        def execute(self, *query: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        executemany = execute

    monkeypatch.setattr(texts, "_database", Full())
    with pytest.raises(OutputError, match=r"temporary files cannot be used .*full.*TMPDIR"):
        texts.put([("a", 1)])
    with pytest.raises(OutputError, match="TMPDIR"):
        len(texts)


@pytest.mark.slow
def test_very_many_paths_take_little_memory() -> None:
    forget_peak()
    before = peak_memory()
    texts = distinct(f"photographs/of the summer/picture-{number:07}.jpg" for number in range(300_000))
    assert sum(text in texts for text in texts) == 300_000
    assert peak_memory() - before < 10_000_000  # a tenth of what a dict takes
