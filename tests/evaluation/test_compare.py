"""The paired bootstrap: right intervals, and nothing else compared than what can be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sentences import scenes

from captioner.errors import CaptionerError, DataError
from captioner.evaluation.compare import _resamples, compare, difference_table
from captioner.evaluation.metrics import bleu
from captioner.evaluation.scores import METRICS, score_pictures
from captioner.vocab import tokenise

PICTURES = 150
NAMES = [f"{number:03}.jpg" for number in range(PICTURES)]


@pytest.fixture(autouse=True)
def _one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The human row is not compared: no time for it."""
    monkeypatch.setattr("captioner.evaluation.scores._HELD_OUT", 1)


@pytest.fixture(scope="module")
def captions() -> list[str]:
    return scenes(PICTURES)[0]


@pytest.fixture(scope="module")
def references() -> list[list[str]]:
    return scenes(PICTURES)[1]


def evaluated(file: Path, captions: list[str], references: list[list[str]]) -> Path:
    names = NAMES[: len(captions)]
    evaluation = score_pictures(dict(zip(names, captions, strict=True)), dict(zip(names, references, strict=True)))
    file.write_text(evaluation.to_json())
    return file


def test_no_difference_between_an_evaluation_and_itself(
    tmp_path: Path, captions: list[str], references: list[list[str]]
) -> None:
    file = evaluated(tmp_path / "a.json", captions, references)
    for difference in compare(file, file):
        assert difference.first == difference.second
        assert difference.low == difference.high == 0.0
        assert not difference.clear


def test_the_values_are_those_of_the_files(tmp_path: Path, captions: list[str], references: list[list[str]]) -> None:
    better = [
        those[0] if number % 2 else text for number, (text, those) in enumerate(zip(captions, references, strict=True))
    ]
    first = evaluated(tmp_path / "a.json", captions, references)
    second = evaluated(tmp_path / "b.json", better, references)
    one, other = json.loads(first.read_text()), json.loads(second.read_text())
    differences = compare(first, second)
    assert [difference.metric for difference in differences] == list(METRICS)
    for difference in differences:
        assert difference.first == pytest.approx(one[difference.metric], abs=1e-9)
        assert difference.second == pytest.approx(other[difference.metric], abs=1e-9)
        assert difference.low < difference.second - difference.first < difference.high
        assert difference.clear
        assert difference.low > 0
    backwards = compare(second, first)
    for there, back in zip(differences, backwards, strict=True):
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-9)
        assert back.clear
    assert difference_table(differences).count("B is better") == 6
    assert difference_table(backwards).count("A is better") == 6


def test_a_small_gain_is_not_called_one(tmp_path: Path, captions: list[str], references: list[list[str]]) -> None:
    slightly = list(captions)
    slightly[5], slightly[9] = references[5][0], "fish"
    first = evaluated(tmp_path / "a.json", captions, references)
    differences = compare(first, evaluated(tmp_path / "b.json", slightly, references))
    assert any(difference.first != difference.second for difference in differences)
    assert not any(difference.clear for difference in differences)
    assert "better" not in difference_table(differences)


def test_the_interval_is_that_of_scoring_resampled_captions(
    tmp_path: Path, captions: list[str], references: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.evaluation.compare._RESAMPLES", 100)
    captions, references = captions[:12], references[:12]
    other = [*captions[5:], *captions[:5]]
    files = evaluated(tmp_path / "a.json", captions, references), evaluated(tmp_path / "b.json", other, references)
    texts = [[tokenise(text) for text in those] for those in references]
    first, second = ([tokenise(text) for text in those] for those in (captions, other))
    (weights,) = _resamples(12)
    assert weights.shape == (100, 12)
    assert set(weights.sum(1)) == {12.0}
    differences = []
    for row in weights.astype(int):
        drawn = np.repeat(np.arange(12), row)
        left = [texts[i] for i in drawn]
        differences.append(bleu([second[i] for i in drawn], left)[1] - bleu([first[i] for i in drawn], left)[1])
    bleu_2 = compare(*files)[1]
    assert (bleu_2.low, bleu_2.high) == pytest.approx(tuple(np.percentile(differences, [2.5, 97.5])), abs=1e-9)


def test_resamples_come_in_chunks_for_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.evaluation.compare._AT_ONCE", 3000)
    chunks = [chunk.shape for chunk in _resamples(10)]
    assert chunks == [(300, 10), (300, 10), (300, 10), (100, 10)]


def test_other_pictures_or_references_are_refused(
    tmp_path: Path, captions: list[str], references: list[list[str]]
) -> None:
    first = evaluated(tmp_path / "a.json", captions[:20], references[:20])
    fewer = evaluated(tmp_path / "b.json", captions[:19], references[:19])
    others = evaluated(tmp_path / "c.json", captions[:20], [those[:4] for those in references[:20]])
    for second in (fewer, others):
        with pytest.raises(DataError, match="not of the same pictures and references"):
            compare(first, second)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "the file is empty"),
        ("no json", "not a file that `captioner evaluate --json` wrote"),
        ("[]", "not written by `captioner evaluate --json`"),
        ('{"bleu_4": 3}', "not written by `captioner evaluate --json`"),
    ],
)
def test_a_wrong_file_gets_one_clear_line(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(CaptionerError, match=complaint) as caught:
        compare(file, file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["pictures", "number", "huge", "nan", "column", "images", "hash"])
def test_a_damaged_evaluation_is_refused(
    tmp_path: Path, captions: list[str], references: list[list[str]], damage: str
) -> None:
    file = evaluated(tmp_path / "a.json", captions[:5], references[:5])
    content = json.loads(file.read_text())
    if damage == "pictures":
        del content["pictures"][0]
    elif damage == "number":
        content["pictures"][0]["cider"] = "high"
    elif damage == "huge":
        content["pictures"][0]["cider"] = 10**400
    elif damage == "nan":
        content["pictures"][0]["cider"] = float("nan")
    elif damage == "column":
        content["pictures"][0]["bleu_counts"] = [1, 2]
    else:
        del content["images" if damage == "images" else "references_sha256"]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a\.json: "):
        compare(file, file)


def test_words_and_characters_are_not_compared(
    tmp_path: Path, captions: list[str], references: list[list[str]]
) -> None:
    first = evaluated(tmp_path / "a.json", captions, references)
    content = json.loads(first.read_text())
    (tmp_path / "b.json").write_text(json.dumps({**content, "tokens": "character"}))
    with pytest.raises(DataError, match=r"a\.json compares words and .*b\.json characters: evaluate both with one"):
        compare(first, tmp_path / "b.json")
