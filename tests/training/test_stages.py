"""Augmented pictures keep what their captions speak of, captions without pictures see none, classes are kept."""

from __future__ import annotations

import dataclasses
import gc
import random
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from captioner.data.texts import read_texts
from captioner.evaluation.metrics import DocumentFrequencies
from captioner.training import known, start
from captioner.training.features import features_of
from captioner.training.first import Start
from captioner.training.matching import MatchStage
from captioner.training.optimiser import Optimiser
from captioner.training.ranks import Ranks
from captioner.training.stages import EndToEndStage, FrozenStage, SelfCriticalStage, augmented, plan
from captioner.training.start import Material
from captioner.training.words import cross_fitted, fit_to
from training.runs import TINY, Shapes, split_of


def test_augmentation_keeps_most_of_the_picture_and_mirrors_when_told() -> None:
    picture = Image.linear_gradient("L").rotate(90).convert("RGB").resize((100, 50))  # brighter towards one side
    plain = augmented(picture, False, 32, random.Random(3))
    mirrored = augmented(picture, True, 32, random.Random(3))
    assert plain.size == (32, 32)
    assert plain.tobytes() == mirrored.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    assert plain.tobytes() != mirrored.tobytes()
    shares = []
    for seed in range(50):
        # Where the gradient begins and ends says how much of it is left; the light is another thing.
        row = augmented(picture, False, 32, random.Random(seed)).convert("L").crop((0, 16, 32, 17))
        low, high = row.getextrema()
        shares.append((high - low) / 255)
    assert max(shares) - min(shares) > 0.1  # it does vary


def test_the_part_is_most_of_the_picture() -> None:
    """Of a picture with a mark in each corner of its middle, 40 % in from the sides, no mark is ever lost."""
    picture = Image.new("RGB", (100, 100))
    for x in (40, 59):
        for y in (40, 59):
            picture.paste((255, 255, 255), (x - 5, y - 5, x + 5, y + 5))
    for seed in range(50):
        part = augmented(picture, False, 64, random.Random(seed)).convert("L").point(lambda v: 255 if v > 90 else 0)
        left, top, right, bottom = part.getbbox() or (0, 0, 0, 0)
        assert right - left > 0.25 * 64
        assert bottom - top > 0.25 * 64


def test_light_changes_and_hues_stay() -> None:
    picture = Image.new("RGB", (50, 50), (180, 60, 60))
    pixels = {augmented(picture, False, 8, random.Random(seed)).getpixel((4, 4)) for seed in range(20)}
    assert len(pixels) > 10
    for red, green, blue in pixels:
        assert red > green + 40
        assert abs(green - blue) < 3


@pytest.fixture
def material(shapes: Shapes, weights_with_classes: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> Material:
    """48 pictures with 144 captions, and 105 captions of 70 photographs that are not there."""
    monkeypatch.setattr("captioner.training.words._STEPS", 5)
    config = dataclasses.replace(TINY, finetune_epochs=0, dropout=0.0)
    return Material.of(config, split_of(shapes), Start(weights_with_classes), Ranks(), read_texts(text))


def rows_of_an_epoch(stage: FrozenStage, seed: int = 0) -> Tensor:
    return torch.cat(stage.batches(torch.Generator().manual_seed(seed)))


class TestCaptionsWithoutPictures:
    @pytest.mark.parametrize(("share", "number"), [(0.0, 0), (0.2, 36), (0.4, 96), (0.5, 105), (0.95, 105)])
    def test_an_epoch_has_every_caption_with_a_picture_and_a_share_of_the_others(
        self, material: Material, share: float, number: int
    ) -> None:
        assert (material.paired, len(material.captions), len(material.sources)) == (144, 249, 118)
        material.config = dataclasses.replace(material.config, text_share=share)
        stage = FrozenStage(material)
        rows = rows_of_an_epoch(stage)
        assert sorted(rows[rows < 144].tolist()) == list(range(144))
        others = rows[rows >= 144].tolist()
        assert len(set(others)) == len(others) == number
        assert len(stage.batches(torch.Generator())) == stage.steps == -(-(144 + number) // 16)

    def test_sources_have_equal_parts_as_long_as_they_have_captions(self, material: Material) -> None:
        """Of the sources, one has 30 captions and the other 75."""
        drawn = []
        for share, expected in ((0.2, {0: 18, 1: 18}), (0.4, {0: 66, 1: 30})):
            material.config = dataclasses.replace(material.config, text_share=share)
            rows = rows_of_an_epoch(FrozenStage(material))
            drawn.append(rows[rows >= 144])
            assert Counter(material.sources[material.captions.picture[drawn[-1]].long()].tolist()) == expected
            assert torch.equal(rows_of_an_epoch(FrozenStage(material)), rows)
        other = rows_of_an_epoch(FrozenStage(material), seed=1)
        assert set(other[other >= 144].tolist()) != set(drawn[-1].tolist())

    def test_no_picture_has_anything_to_do_with_them(self, material: Material) -> None:
        stage = FrozenStage(material)
        stage.prepare()
        material.model.decoder.standardise(stage._features.flatten(0, 1))

        def losses(rows: Tensor) -> list[float]:
            torch.manual_seed(0)
            return [step.total.item() for step in stage.losses(rows.split(6), "0")]

        without, with_pictures = torch.arange(144, 156), torch.arange(12)
        before = losses(without), losses(with_pictures)
        torch.manual_seed(1)
        stage._features = torch.randn_like(stage._features)
        after = losses(without), losses(with_pictures)
        assert after[0] == before[0]
        assert after[1] != before[1]

    def test_they_are_not_mirrored(self, material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        plain = Material.tokens
        monkeypatch.setattr(
            Material,
            "tokens",
            lambda self, rows, mirrored: asked.append((rows, mirrored)) or plain(self, rows, mirrored),
        )
        stage = FrozenStage(material)
        stage.prepare()
        list(stage.losses([torch.arange(100, 200)], "0"))
        [(rows, mirrored)] = asked
        assert mirrored[rows < 144].any()
        assert not mirrored[rows >= 144].any()

    def test_they_are_told_as_others_only_where_their_source_is_not_that_of_the_pictures(
        self, material: Material
    ) -> None:
        stage = FrozenStage(material)
        stage.prepare()
        rows = torch.arange(249)
        [(_, told)] = stage._inputs([rows], [rows], "0")
        sources = material.sources[material.captions.picture.long()]
        assert torch.equal(told["manner"][:, 0], (sources != sources[0]).float())
        assert not told["manner"][:144].any()
        assert told["manner"].sum() in (30, 75)

    def test_what_predicts_words_does_not_learn_from_captions(self, material: Material) -> None:
        stage = SelfCriticalStage(material, [])
        names = stage.weights[0][0]
        assert "decoder.h0.weight" in names
        assert not any("words" in name for name in names)

    def test_the_predictor_is_fitted_once_in_a_run(self, material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
        fitted = []
        monkeypatch.setattr(known, "cross_fitted", lambda *given: fitted.append(given) or cross_fitted(*given))
        for stage in (FrozenStage(material), SelfCriticalStage(material, [("a red ball",)] * 48)):
            stage.prepare()
        assert len(fitted) == 1
        assert fitted[0][2] is material.model.decoder.words.learned

    def test_samples_of_a_rehearsal_are_as_long_as_captions_are_on_average(self, material: Material) -> None:
        stage, lengths = SelfCriticalStage(material, [("a red ball",)] * 48), material.captions.lengths()
        stage.rehearse()
        assert stage._rules.options.max_length == lengths.sum() // len(lengths)
        stage.prepare()
        assert stage._rules.options.max_length == lengths.max()


def moved_answers(shapes: Shapes, weights: Path, keep_weight: float) -> float:
    """How far the classifier's probabilities move in six steps end to end."""
    config = dataclasses.replace(TINY, keep_weight=keep_weight, encoder_learning_rate=3e-3, concept_weight=0.0)
    torch.manual_seed(0)
    material = Material.of(config, split_of(shapes), Start(weights), Ranks())
    stage, classifier = EndToEndStage(material), material.model.decoder.words.classifier
    stage.rehearse()  # of which nothing is left
    stage.prepare()
    answers, bias = [classifier(material.features()[:, 0].float()).softmax(-1)], classifier.bias.clone()
    optimiser = Optimiser(stage.weights, 0.0, 5.0, 6)
    material.model.train()
    torch.manual_seed(0)
    for step in stage.losses(stage.batches(torch.Generator().manual_seed(0)) * 3, "0"):
        optimiser.step(step.total)
    answers.append(classifier(material.features()[:, 0].float()).softmax(-1))
    assert torch.equal(classifier.bias, bias)
    return (answers[0] - answers[1]).abs().sum(1).mean().item()


def test_learning_without_forgetting_keeps_what_the_classifier_answers(
    shapes: Shapes, weights_with_classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.training.words._classes_by_name", lambda: {"red": [3, 5], "square": [7]})
    monkeypatch.setattr("captioner.training.words._ENGLISH", {"red"})
    forgetful, faithful = (moved_answers(shapes, weights_with_classes, weight) for weight in (0.0, 100.0))
    assert faithful < 0.3 * forgetful


def test_stages_share_features_and_what_was_fitted_to_them_until_the_encoder_changes(
    shapes: Shapes, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a large set, reading all pictures and features takes minutes, and each copy of the features gigabytes."""
    monkeypatch.setattr("captioner.training.words._STEPS", 5)
    read, fitted = [], []
    monkeypatch.setattr(start, "features_of", lambda *given: read.append(given) or features_of(*given))
    monkeypatch.setattr(known, "fit_to", lambda *given: fitted.append(given) or fit_to(*given))
    split = split_of(shapes)
    material = Material.of(TINY, split, Start(tiny_weights), Ranks())
    own = [example.captions for example in split.train]
    stages = [FrozenStage(material), SelfCriticalStage(material, own), MatchStage(material)]
    head = material.model.decoder.words.learned
    stages[0].prepare()
    weight = head.weight.clone()
    torch.nn.init.zeros_(head.weight)  # as a checkpoint rounds it
    for stage in stages:
        stage.prepare()
    assert len(read) == len(fitted) == 1
    assert torch.equal(head.weight, weight)
    assert len({stage._features.data_ptr() for stage in stages}) == 1
    before = material.features()
    assert before.dtype == torch.float16
    with torch.no_grad():
        for weights in material.model.encoder.parameters():
            weights.mul_(1.1)
    stages[1].prepare()
    assert len(read) == len(fitted) == 2
    assert not torch.equal(material.features(), before)


def test_a_plan_does_not_count_the_n_grams_of_all_captions(
    shapes: Shapes, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes half a minute for a large set, and its rewards come hours later."""
    monkeypatch.setattr("captioner.training.stages._REHEARSED", 3)
    documents = []
    of = DocumentFrequencies.of
    monkeypatch.setattr(DocumentFrequencies, "of", lambda texts: documents.append(of(texts)) or documents[-1])
    split = split_of(shapes)
    material = Material.of(TINY, split, Start(tiny_weights), Ranks())
    stage = SelfCriticalStage(material, [example.captions for example in split.train])
    plan([stage], material)
    stage.prepare()
    assert [each.documents for each in documents] == [3, len(split.train)]


def test_a_stage_that_is_over_holds_no_features(shapes: Shapes, weights_with_classes: Path) -> None:
    """Those of a large set and of two encoders at once would take gigabytes."""
    split = split_of(shapes)
    material = Material.of(TINY, split, Start(weights_with_classes), Ranks())
    frozen, end_to_end = FrozenStage(material), EndToEndStage(material)
    plan([frozen, end_to_end], material)
    frozen.prepare()
    features = weakref.ref(material.features())
    frozen.leave()
    assert features() is not None  # the classifier is still to be asked about them
    end_to_end.prepare()
    gc.collect()
    assert features() is None
    end_to_end.leave()
    assert end_to_end._classes is None
