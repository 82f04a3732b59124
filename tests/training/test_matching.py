"""The last stage: pairs are told apart, a sentence finds its picture, and a checkpoint keeps what it learned."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.evaluation.retrieval import ranks, retrieval_scores
from captioner.inference.captioner import load
from captioner.inference.reader import load_reader
from captioner.network.checkpoint import load_checkpoint
from captioner.training.captions import CaptionTokens, sentences_of
from captioner.training.first import Start
from captioner.training.folder import CHECKPOINT_NAME
from captioner.training.matching import MatchStage, contrastive_loss
from captioner.training.ranks import Ranks
from captioner.training.run import train_on
from captioner.training.start import Material
from captioner.vocab import PAD, START, UNK, Vocabulary
from training.runs import TINY, Killed, Shapes, kill_after, metrics, quiet, split_of

ALONE = replace(TINY, epochs=0, finetune_epochs=0, scst_epochs=0)


def test_the_loss_is_both_cross_entropies() -> None:
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = 0.0
    for one in range(3):
        row, column = logits[one].exp(), logits[:, one].exp()
        wanted -= math.log(row[one] / row.sum()) + math.log(column[one] / column.sum())
    assert float(contrastive_loss(logits)) == pytest.approx(wanted / 6)


def test_sentences_have_no_marks_and_at_least_a_word() -> None:
    vocabulary = Vocabulary.build(["a dog runs"])
    tokens = CaptionTokens.of([["a dog runs", "dog", "..."]], vocabulary).batch(torch.arange(3))
    assert tokens[:, 0].tolist() == [START] * 3
    a, dog, runs = vocabulary.encode("a dog runs")
    assert sentences_of(tokens).tolist() == [[a, dog, runs, PAD], [dog, PAD, PAD, PAD], [UNK, PAD, PAD, PAD]]


def test_no_batch_has_a_picture_twice(shapes: Shapes, tiny_weights: Path) -> None:
    material = Material.of(TINY, split_of(shapes), Start(tiny_weights), Ranks())
    stage = MatchStage(material)
    batches = stage.batches(torch.Generator().manual_seed(0))
    assert len(batches) == stage.steps
    assert sorted(torch.cat(batches).tolist()) == list(range(material.paired))
    for rows in batches:
        pictures = material.captions.picture[rows].tolist()
        assert len(set(pictures)) == len(pictures)
    assert material.model.matcher is None  # until the stage begins


@pytest.mark.slow
def test_a_sentence_learns_to_find_its_picture(shapes: Shapes, tiny_weights: Path, tmp_path: Path) -> None:
    """From the first weights to better than chance, and the file keeps it."""
    run, config = tmp_path / "run", replace(ALONE, epochs=1, match_epochs=50, patience=1.0)
    train_on(split_of(shapes), run, config, Start(tiny_weights), say=quiet)
    first, *_, last = (row for row in metrics(run) if row["stage"] == "matching")
    assert last["recall"] > first["recall"] + 5
    assert last["train_loss"] < first["train_loss"] - 0.3
    assert last["cider"] == first["cider"]  # captions stay as they were
    known = load_checkpoint(run / CHECKPOINT_NAME).provenance["retrieval"]
    assert known["recall"] == pytest.approx(last["recall"])
    reader, model = load_reader(run / CHECKPOINT_NAME), load(run / CHECKPOINT_NAME)
    examples = split_of(shapes).validation
    pictures = reader.pictures(model.encode([each.path for each in examples]))
    texts = [(place, text) for place, each in enumerate(examples) for text in each.captions]
    owner = np.array([place for place, _ in texts])
    found = retrieval_scores(*ranks(reader.sentences([t for _, t in texts]), pictures, owner))
    assert found["recall"] == pytest.approx(known["recall"], abs=2.0)  # what people get is what was measured


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoints_matcher(shapes: Shapes, tiny_weights: Path, tmp_path: Path) -> None:
    """New words begin as the unknown word, and a stage that makes nothing better changes nothing."""
    split = split_of(shapes)
    train_on(split, tmp_path / "first", replace(TINY, scst_epochs=0, match_epochs=8), Start(tiny_weights), say=quiet)
    before = load_checkpoint(tmp_path / "first" / CHECKPOINT_NAME).model.matcher
    init, config = Start(init=tmp_path / "first" / CHECKPOINT_NAME), replace(ALONE, match_learning_rate=0.0)
    train_on(split, tmp_path / "second", config, init, say=quiet)
    after = load_checkpoint(tmp_path / "second" / CHECKPOINT_NAME).model.matcher
    assert before is not None
    assert after is not None
    for name, weights in after.state_dict().items():
        torch.testing.assert_close(weights, before.state_dict()[name], msg=name)


@pytest.mark.slow
def test_a_run_that_began_with_a_matcher_goes_on_bit_for_bit(
    shapes: Shapes, tiny_weights: Path, tmp_path: Path
) -> None:
    """The last stage scores captions once, with weights as a checkpoint holds them, whether it is resumed or not."""
    split, config = split_of(shapes), replace(ALONE, epochs=1, match_epochs=2)
    train_on(split, tmp_path / "first", replace(config, match_epochs=1), Start(tiny_weights), say=quiet)
    init = Start(init=tmp_path / "first" / CHECKPOINT_NAME)
    train_on(split, tmp_path / "whole", config, init, say=quiet)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 9 + 3 + 1)  # in the second epoch of matching
        with pytest.raises(Killed):
            train_on(split, tmp_path / "run", config, init, say=quiet)
    train_on(split, tmp_path / "run", config, init, resume=True, say=quiet)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.mark.slow
def test_a_matcher_of_another_encoder_is_left_out(shapes: Shapes, tiny_weights: Path, tmp_path: Path) -> None:
    split, one = split_of(shapes), replace(ALONE, epochs=1, match_epochs=1)
    train_on(split, tmp_path / "first", one, Start(tiny_weights), say=quiet)
    init = Start(init=tmp_path / "first" / CHECKPOINT_NAME)
    for name, config, kept in (
        ("decoder", replace(one, match_epochs=0), True),
        ("encoder", replace(one, match_epochs=0, finetune_epochs=1), False),
        ("both", replace(one, finetune_epochs=1), True),
    ):
        train_on(split, tmp_path / name, config, init, say=quiet)
        assert (load_checkpoint(tmp_path / name / CHECKPOINT_NAME).model.matcher is not None) == kept
