"""What `Captioner.explain` shows is what decoding did."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_picture
from network.checkpoint_files import with_words

import captioner
from captioner.inference.explanation import GRID, BeamRecorder, heat_maps
from captioner.inference.rules import Rules
from captioner.inference.torch_engine import captioner_of
from captioner.network.checkpoint import load_checkpoint
from captioner.vocab import END
from inference.decoders import decode


@pytest.fixture(scope="module")
def model(tiny_checkpoint_file: Path) -> captioner.Captioner:
    return captioner.load(tiny_checkpoint_file, precision="float32")


PICTURE = np.asarray(draw_picture(1))


@pytest.mark.parametrize("strategy", ["greedy", "beam", "sample"])
def test_the_caption_is_the_one_that_is_explained(model: captioner.Captioner, strategy: str) -> None:
    options = captioner.DecodeOptions(strategy)
    explanation = model.explain(PICTURE, options)
    caption = explanation.caption
    assert caption == model.caption(PICTURE, options)
    ends = ["<end>"] if caption.finished else []
    assert [step.word for step in explanation.steps] == [*caption.tokens, *ends]
    assert math.prod(step.probability for step in explanation.steps) == pytest.approx(math.exp(caption.logprob))
    assert bool(explanation.beam) == (strategy == "beam")


def test_candidates_are_the_likeliest_words(model: captioner.Captioner) -> None:
    explanation = model.explain(PICTURE, captioner.DecodeOptions("greedy"))
    assert len(explanation.steps) > 2
    for place, step in enumerate(explanation.steps):
        probabilities = [candidate.probability for candidate in step.candidates]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len({candidate.word for candidate in step.candidates}) == len(probabilities) == 10
        shown = {candidate.word: candidate.probability for candidate in step.candidates}
        # The word itself is among them at its own probability, and another is what `score` gives it there.
        assert shown[step.word] == pytest.approx(step.probability, rel=1e-4)
        other = next(word for word in shown if word != step.word and not word.startswith("<"))
        before = " ".join(explanation.caption.tokens[:place])
        assert model.score(PICTURE, f"{before} {other}").probabilities[place] == pytest.approx(shown[other], rel=1e-4)


def test_hidden_states_are_those_from_which_words_were_chosen(model: captioner.Captioner) -> None:
    explanation = model.explain(PICTURE)
    decoder = model.network.decoder
    with torch.inference_mode():
        for step in explanation.steps:
            logits = decoder.logits(step.hidden)
            chosen = logits.softmax(-1)[model.vocabulary.words.index(step.word)]
            assert float(chosen) == pytest.approx(step.probability, rel=1e-4)


def test_beam_branches_hang_together(model: captioner.Captioner) -> None:
    options = captioner.DecodeOptions("beam", beam_size=4)
    explanation = model.explain(PICTURE, options)
    winner = [step.word for step in explanation.steps]
    ways: list[list[list[str]]] = []
    for t, step in enumerate(explanation.beam):
        assert 0 < len(step) <= 4
        assert [branch.logprob for branch in step] == sorted((branch.logprob for branch in step), reverse=True)
        ways.append([])
        for branch in step:
            assert (branch.parent is None) == (t == 0)
            above = explanation.beam[t - 1][branch.parent] if branch.parent is not None else None
            if above:
                assert branch.logprob <= above.logprob
                assert above.score is None  # what has ended does not go on
            before = ways[t - 1][branch.parent] if branch.parent is not None else []
            ways[t].append([*before, branch.word])
            assert (branch.score is not None) == (branch.word == "<end>")
            if branch.score is not None:
                assert branch.score == pytest.approx(branch.logprob / (t + 1) ** options.length_penalty)
    found = [(t, i) for t, step in enumerate(ways) for i, way in enumerate(step) if way == winner]
    assert found
    t, i = found[0]
    assert explanation.beam[t][i].logprob == pytest.approx(explanation.caption.logprob, rel=1e-4)
    # The winner is the best of all that ended.
    scores = [branch.score for step in explanation.beam for branch in step if branch.score is not None]
    assert explanation.beam[t][i].score == max(scores)


def test_a_watched_beam_chooses_as_an_unwatched_one(model: captioner.Captioner) -> None:
    feature = torch.from_numpy(model.encode([PICTURE]))
    options = captioner.DecodeOptions(num_captions=3)
    recorder = BeamRecorder(model.vocabulary.words, options.length_penalty)
    watched = decode(model.network.decoder, feature, Rules(options), recorder)
    assert watched == decode(model.network.decoder, feature, Rules(options))
    assert recorder.steps


def test_predicted_words_are_those_of_the_predictor_each_once(tiny_checkpoint_file: Path) -> None:
    checkpoint = with_words(load_checkpoint(tiny_checkpoint_file))
    model = captioner_of(checkpoint)
    found = model.explain(draw_picture(1)).words
    predictor, words = checkpoint.model.decoder.words, checkpoint.vocabulary.words
    probabilities = predictor(torch.from_numpy(model.encode([draw_picture(1)])))[0]
    expected: dict[str, float] = {}
    for token, probability in zip(predictor.tokens.tolist(), probabilities.tolist(), strict=True):
        expected[words[token]] = max(probability, expected.get(words[token], 0.0))
    assert len(expected) == 4  # of five columns, two are of one word
    assert [candidate.word for candidate in found] == sorted(expected, key=lambda word: -expected[word])
    assert [candidate.probability for candidate in found] == pytest.approx(sorted(expected.values(), reverse=True))
    assert captioner.load(tiny_checkpoint_file).explain(draw_picture(1)).words == ()


def test_heat_is_what_hiding_a_part_does(model: captioner.Captioner) -> None:
    explanation = model.explain(PICTURE)
    prepared = model.prepare(PICTURE).copy()
    side = len(prepared)
    row, column = 2, 4  # a cell and half of its neighbours on either side
    top, bottom = round((row - 0.5) * side / GRID), round((row + 1.5) * side / GRID)
    left, right = round((column - 0.5) * side / GRID), round((column + 1.5) * side / GRID)
    prepared[top:bottom, left:right] = np.round(prepared.astype(np.float32).mean((0, 1)))
    hidden = model.score(prepared, " ".join(explanation.caption.tokens))
    for step, probability in zip(explanation.steps, hidden.probabilities, strict=False):
        expected = math.log(step.probability) - math.log(probability)
        assert float(step.heat[row, column]) == pytest.approx(expected, abs=2e-3)


def test_heat_finds_the_only_part_that_matters() -> None:
    """An encoder that sees nothing but one corner: only hiding that corner has an effect."""

    class Corner(torch.nn.Module):
        def read(self, tokens: torch.Tensor, state: object) -> object: ...

        def __call__(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(features), tokens.shape[1], 8)
            logits[:, :, END] = features[:, :1]
            return logits

    pixels = torch.zeros(3, 70, 70, dtype=torch.uint8)
    pixels[:, 60:, 60:] = 255
    maps = heat_maps(
        lambda batch: batch[:, :1, 65:, 65:].float().mean((2, 3)) / 50,
        Corner(),
        pixels,
        [END],  # type: ignore[arg-type]
    )
    assert maps.shape == (1, GRID, GRID)
    assert (maps[0] > 0.01).nonzero().tolist() == [[6, 6]]


def test_prepared_pictures_make_the_same_captions(model: captioner.Captioner) -> None:
    prepared = model.prepare(PICTURE)
    assert prepared.shape == (64, 64, 3)
    assert prepared.dtype == np.uint8
    assert np.array_equal(model.encode([prepared]), model.encode([PICTURE]))


def test_features_are_scored_as_pictures_are(model: captioner.Captioner) -> None:
    pictures = [np.asarray(draw_picture(index)) for index in range(3)]
    scored = model.score_features(model.encode(pictures), "a dog runs")
    assert [caption.tokens for caption in scored] == [("a", "dog", "runs")] * 3
    for picture, caption in zip(pictures, scored, strict=True):
        assert caption.logprob == pytest.approx(model.score(picture, "a dog runs").logprob, rel=1e-4)


def test_in_bfloat16_the_caption_is_still_the_one_explained(tiny_checkpoint_file: Path) -> None:
    model = captioner.load(tiny_checkpoint_file, precision="bfloat16")
    explanation = model.explain(PICTURE)
    assert explanation.caption == model.caption(PICTURE)
    assert explanation.steps[0].hidden.dtype == explanation.steps[0].heat.dtype == torch.float32
    shown = {candidate.word: candidate.probability for candidate in explanation.steps[0].candidates}
    assert shown[explanation.steps[0].word] == pytest.approx(explanation.steps[0].probability, rel=0.05)
