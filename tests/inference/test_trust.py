"""Confidence, familiarity and tags are what their definitions say, and options act on them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_picture
from network.checkpoint_files import read_parts, refusal, with_words, write_parts
from torch import Tensor

from captioner.errors import OptionError
from captioner.inference import trust
from captioner.inference.decoding import Hypothesis
from captioner.inference.torch_engine import captioner_of
from captioner.inference.trust import NOT_SURE, UNFAMILIAR, caption_inputs, feature_inputs, logistic
from captioner.languages import ENGLISH
from captioner.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from captioner.network.config import Trust
from captioner.options import DecodeOptions
from captioner.vocab import END

TRUST = Trust((1.0, -0.1, 2.0, 6.0), (-1.0, -2.0, 3.0, 4.0), (1.0, 0.0), 0.4, 0.6)


@pytest.fixture
def trusted(tiny_checkpoint: Checkpoint) -> Checkpoint:
    """A captioner that reads words and knows what its captions are worth."""
    return dataclasses.replace(with_words(tiny_checkpoint), trust=TRUST)


@pytest.fixture
def features(trusted: Checkpoint) -> Tensor:
    return torch.from_numpy(captioner_of(trusted).encode([draw_picture(index) for index in range(6)]))


def test_the_confidence_depends_on_words_their_number_and_the_evidence_for_them() -> None:
    evidence = torch.log(torch.rand(2, 12, generator=torch.Generator().manual_seed(0)))
    hypotheses = [Hypothesis((5, 7, END), (-1.0, -2.0, -9.0)), Hypothesis((4, 4, 8), (-1.0, -0.5, -3.0))]
    found = caption_inputs(hypotheses, evidence.numpy())
    expected = [
        [-1.5, 2.0, float(evidence[0, 5] + evidence[0, 7]) / 2],
        [-1.5, 3.0, float(2 * evidence[1, 4] + evidence[1, 8]) / 3],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert caption_inputs(hypotheses, None)[:, 2].tolist() == [0.0, 0.0]
    assert caption_inputs([Hypothesis((END,), (-1.0,))], evidence.numpy()).tolist() == [[0.0, 0.0, 0.0]]


def test_the_familiarity_depends_on_the_standardised_feature(trusted: Checkpoint, features: Tensor) -> None:
    decoder = trusted.model.decoder
    for row, feature in zip(feature_inputs(decoder.standardised(features).numpy()).tolist(), features, strict=True):
        values = ((feature - decoder.feature_mean) / decoder.feature_std).tolist()
        length = math.sqrt(sum(v * v for v in values) / len(values))
        negative = math.sqrt(sum(v * v for v in values if v < 0) / len(values))
        assert row == pytest.approx([length, negative, sum(values) / len(values)], rel=1e-4)


def test_a_logistic_function() -> None:
    found = logistic((2.0, -1.0, 0.5), np.array([[1.0, 3.0], [0.0, 0.0]]))
    assert found.tolist() == pytest.approx([1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-0.5))])


def test_captions_carry_their_numbers_in_any_batch(trusted: Checkpoint, features: Tensor) -> None:
    captioner = captioner_of(trusted)
    options = DecodeOptions(num_captions=2)
    together = captioner.caption_features(features, options)
    for feature, caption in zip(features.split(1), together, strict=True):
        [alone] = captioner.caption_features(feature, options)
        for one, other in ((alone, caption), (alone.alternatives[0], caption.alternatives[0])):
            assert one.confidence == pytest.approx(other.confidence, abs=1e-6)
            assert one.familiar == pytest.approx(other.familiar, abs=1e-6)
        assert alone.familiar == alone.alternatives[0].familiar
        assert alone.confidence != alone.alternatives[0].confidence
    assert len({caption.confidence for caption in together}) > 3


def test_confidence_falls_where_the_picture_is_not_familiar(trusted: Checkpoint, features: Tensor) -> None:
    trusted.trust = dataclasses.replace(TRUST, min_familiar=0.0)
    plain = captioner_of(trusted).caption_features(features)
    bar = sorted(caption.familiar or 0.0 for caption in plain)[3]
    trusted.trust = dataclasses.replace(TRUST, min_familiar=bar)
    for before, after in zip(plain, captioner_of(trusted).caption_features(features), strict=True):
        assert before.confidence
        assert before.familiar
        assert after.confidence == pytest.approx(before.confidence * min(1.0, before.familiar / bar), abs=1e-6)


def test_a_checkpoint_that_was_not_measured_has_no_numbers(tiny_checkpoint: Checkpoint) -> None:
    captioner = captioner_of(tiny_checkpoint)
    caption = captioner.caption(draw_picture(0))
    assert (caption.confidence, caption.familiar, caption.unsure, caption.tags) == (None, None, "", ())
    assert caption.to_dict().keys().isdisjoint(["confidence", "familiar", "unsure", "tags"])
    for options, message in (
        (DecodeOptions(unsure="skip"), "unsure skip needs a checkpoint that knows how sure it is"),
        (DecodeOptions(tags=3), "tags need a checkpoint with a word predictor"),
    ):
        with pytest.raises(OptionError, match=message):
            captioner.caption(draw_picture(0), options)


class TestUnsure:
    def captions(self, trusted: Checkpoint, features: Tensor, **options: Any) -> list[Any]:
        return captioner_of(trusted).caption_features(features, DecodeOptions(**options))

    def test_what_speaks_against_a_caption_is_told(self, trusted: Checkpoint, features: Tensor) -> None:
        plain = self.captions(trusted, features)
        sure, known = ([getattr(caption, name) for caption in plain] for name in ("confidence", "familiar"))
        bars = sorted(sure)[3], sorted(known)[2]
        found = self.captions(trusted, features, min_confidence=bars[0], min_familiar=bars[1])
        expected = [
            UNFAMILIAR if f < bars[1] else NOT_SURE if c < bars[0] else "" for c, f in zip(sure, known, strict=True)
        ]
        assert [caption.unsure for caption in found] == expected
        assert len(set(expected)) == 3
        assert [caption.text for caption in found] == [caption.text for caption in plain]

    def test_it_is_marked_or_left_out(
        self, trusted: Checkpoint, features: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trust, "language_of", lambda words: ENGLISH)
        plain = self.captions(trusted, features)
        bar = sorted(caption.confidence for caption in plain)[3]
        for unsure in ("mark", "skip"):
            found = self.captions(trusted, features, unsure=unsure, min_confidence=bar, min_familiar=0.0)
            for one, other in zip(found, plain, strict=True):
                marked = "May show: " + other.text if unsure == "mark" else ""
                assert one.text == (other.text if other.confidence >= bar else marked)
                assert one.tokens == other.tokens

    def test_the_checkpoint_has_an_operating_point(self, trusted: Checkpoint, features: Tensor) -> None:
        plain = self.captions(trusted, features)
        bar = sorted(caption.confidence for caption in plain)[3]
        trusted.trust = dataclasses.replace(TRUST, min_confidence=bar, min_familiar=0.0)
        assert sum(not caption.text for caption in self.captions(trusted, features, unsure="skip")) == 3


class TestTags:
    def test_they_are_likely_words_the_most_likely_first(
        self, trusted: Checkpoint, features: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        predictor, words = trusted.model.decoder.words, trusted.vocabulary.words
        said = [words[token] for token in predictor.tokens.tolist()]
        gone = ENGLISH.function_words | {said[0]}
        monkeypatch.setattr(trust, "language_of", lambda words: dataclasses.replace(ENGLISH, function_words=gone))
        scale, shift = 0.5, 0.7
        trusted.trust = dataclasses.replace(TRUST, words=(scale, shift))
        for feature, caption in zip(
            features, captioner_of(trusted).caption_features(features, DecodeOptions(tags=9)), strict=True
        ):
            likely: dict[str, float] = {}
            for word, p in zip(said, predictor(feature[None])[0].tolist(), strict=True):
                p = min(max(p, 1e-6), 1 - 1e-6)
                value = 1 / (1 + math.exp(-(scale * math.log(p / (1 - p)) + shift)))
                if value >= 0.5 and word not in gone:
                    likely[word] = max(value, likely.get(word, 0.0))
            expected = sorted(likely.items(), key=lambda item: -item[1])
            assert [(tag.word, pytest.approx(tag.probability, abs=1e-4)) for tag in caption.tags] == expected

    def test_there_are_at_most_so_many(self, trusted: Checkpoint, features: Tensor) -> None:
        trusted.trust = dataclasses.replace(TRUST, words=(0.0, 1.0))  # any word is likely
        for most in (0, 1, 3):
            captions = captioner_of(trusted).caption_features(features, DecodeOptions(tags=most))
            assert {len(caption.tags) for caption in captions} == {most}


class TestFile:
    def test_it_is_kept(self, trusted: Checkpoint, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "a.safetensors", trusted)
        assert load_checkpoint(tmp_path / "a.safetensors").trust == TRUST

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"confidence": [1.0, 2.0]}, "confidence must be 4 finite numbers"),
            ({"familiar": [1.0, 2.0, math.nan, 1.0]}, "familiar must be 4 finite numbers"),
            ({"words": [1.0, "2"]}, "words must be 2 finite numbers"),
            ({"words": 1.0}, "trust holds something else than lists"),
            ({"min_confidence": 1.5}, "min_confidence must be from 0 to 1"),
            ({"min_familiar": None}, "min_familiar must be from 0 to 1"),
            ({"more": 1}, "trust is not what it should be"),
        ],
    )
    def test_a_damaged_one_is_refused(
        self, trusted: Checkpoint, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        file = tmp_path / "a.safetensors"
        save_checkpoint(file, trusted)
        content, tensors = read_parts(file)
        content["trust"] |= change
        write_parts(file, content, tensors)
        assert message in refusal(file, load_checkpoint)
