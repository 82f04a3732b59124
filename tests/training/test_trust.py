"""What captions are worth is fitted as its definitions say, and reported for what was never fitted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import draw_picture
from network.checkpoint_files import with_words
from torch import Tensor

from captioner.evaluation.reliability import calibration
from captioner.inference.torch_engine import PictureEncoder, captioner_of
from captioner.network.checkpoint import Checkpoint
from captioner.training import trust
from captioner.training.trust import (
    auroc,
    cross_fitted,
    error_by_chance,
    fit_logistic,
    measure,
    operating_point,
)


def drawn(number: int, weights: tuple[float, ...] = (2.0, -1.0, 0.5)) -> tuple[Tensor, Tensor]:
    """Inputs (N, 2), and labels that follow a logistic function with these weights."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(number, 2, generator=generator) * torch.tensor([1.0, 3.0]) + 2
    probability = torch.sigmoid(inputs @ torch.tensor(weights[:2]) + weights[2])
    return inputs, (torch.rand(number, generator=generator) < probability).float()


def test_a_logistic_function_is_found_again() -> None:
    assert fit_logistic(*drawn(20_000)) == pytest.approx((2.0, -1.0, 0.5), abs=0.15)


def test_what_is_told_apart_without_fail_gets_finite_weights() -> None:
    weights = fit_logistic(torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]), torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert 0.1 < weights[0] < 100
    constant = fit_logistic(torch.ones(4, 1), torch.tensor([0.0, 1.0, 1.0, 1.0]))
    assert torch.sigmoid(torch.tensor(constant[0] + constant[1])).item() == pytest.approx(0.75, abs=0.05)


def test_weights_count_as_so_many_examples() -> None:
    inputs, labels = drawn(500)
    weight = torch.where(labels > 0, 3.0, 1.0)
    times = weight.long()
    expected = fit_logistic(inputs.repeat_interleave(times, 0), labels.repeat_interleave(times))
    assert fit_logistic(inputs, labels, weight) == pytest.approx(expected, abs=0.1)


def test_each_fold_is_judged_by_the_others() -> None:
    inputs, labels = drawn(100)
    fold = torch.arange(100) % 5
    found = cross_fitted(inputs, labels, fold)
    labels[fold == 2] = 1 - labels[fold == 2]
    changed = cross_fitted(inputs, labels, fold)
    assert torch.equal(found[fold == 2], changed[fold == 2])
    assert not torch.equal(found, changed)


@pytest.mark.parametrize(
    ("right", "expected"),
    [([1, 1, 1, 0, 0, 0, 0], 0.4), ([1, 1, 0, 1, 0], 0.4), ([0, 0, 0, 0, 1], 1.0), ([1, 1, 1, 1, 1], 0.2)],
)
def test_the_operating_point_keeps_as_many_as_it_may(right: list[int], expected: float) -> None:
    confidence = torch.tensor([0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05][: len(right)])
    assert operating_point(confidence, torch.tensor(right).float()) == pytest.approx(expected)


def test_the_error_and_the_area_by_hand() -> None:
    probability, right = torch.tensor([0.2, 0.3, 0.7, 0.8]), torch.tensor([0.0, 1.0, 1.0, 1.0])
    assert calibration(probability, right)[0] == pytest.approx(100 * (0.2 + 0.7 + 0.3 + 0.2) / 4)
    assert error_by_chance(torch.tensor([0.5] * 100)) == pytest.approx(12.5, abs=2)  # a bin's mean is off by 0.125
    assert error_by_chance(torch.tensor([0.0, 1.0] * 50)) == 0.0
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0])) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert auroc(torch.tensor([]), torch.tensor([1.0])) == 0.5


class TestMeasure:
    @pytest.fixture
    def measured(self, tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
        """A tiny captioner, measured on 24 pictures whose references are its own captions, every other one shuffled."""
        monkeypatch.setattr(trust, "FEWEST", 20)
        monkeypatch.setattr(trust, "_OF_KIND", 2)
        monkeypatch.setattr(trust, "KINDS", ("blank", "stripes", "white-noise", "text-page"))
        monkeypatch.setattr(trust, "DAMAGES", ("dark", "upside-down"))
        checkpoint = with_words(tiny_checkpoint)
        paths = []
        for index in range(24):
            paths.append(tmp_path / f"{index}.png")
            draw_picture(index).save(paths[-1])
        encoder = PictureEncoder(checkpoint.model.encoder, checkpoint.preprocess)
        features = encoder.encode(paths)
        texts = [caption.text for caption in captioner_of(checkpoint, encoder).caption_features(features)]
        references = [[text if index % 2 else "zzz"] for index, text in enumerate(texts)]
        found, self.report = measure(checkpoint, features, paths, references, encoder)
        assert found
        return dataclasses.replace(checkpoint, trust=found)

    def test_it_says_what_share_is_right(self, measured: Checkpoint) -> None:
        assert measured.trust
        assert (self.report["pictures"], self.report["right"]) == (24, 0.5)
        assert self.report["support"] == pytest.approx(0.5)
        assert self.report["support_by_share"]["1"] == pytest.approx(0.5)

    def test_every_kind_is_reported(self, measured: Checkpoint) -> None:
        assert set(self.report["unfamiliar"]) == {
            *("blank", "stripes", "white-noise", "text-page", "dark", "upside-down")
        }
        assert all(0.0 <= value <= 1.0 for value in self.report["unfamiliar"].values())

    def test_captions_get_it(self, measured: Checkpoint) -> None:
        caption = captioner_of(measured).caption(draw_picture(0))
        assert caption.confidence is not None
        assert caption.familiar is not None

    def test_of_few_pictures_nothing_is_known(self, tiny_checkpoint: Checkpoint) -> None:
        encoder = PictureEncoder(tiny_checkpoint.model.encoder, tiny_checkpoint.preprocess)
        few = [draw_picture(0)]
        found = measure(tiny_checkpoint, encoder.encode(few), few, [["a dog"]], encoder)
        assert found == (None, {"pictures": 1})
