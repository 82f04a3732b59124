"""Where first weights come from. With those of a checkpoint new words come in, and the old ones lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY_ENCODER, make_checkpoint

from captioner.errors import CheckpointError, OptionError
from captioner.network.checkpoint import load_checkpoint, save_checkpoint
from captioner.network.header import find_checkpoint
from captioner.training.config import TrainConfig
from captioner.training.first import Start, first_checkpoint, warm_start
from captioner.vocab import UNK


def test_old_words_keep_their_logits_and_new_ones_begin_as_unknown(tmp_path: Path) -> None:
    old = make_checkpoint()
    save_checkpoint(tmp_path / "old.safetensors", old)
    stored = load_checkpoint(tmp_path / "old.safetensors")
    config = TrainConfig(minimum_count=2, dropout=0.3)
    checkpoint, config = warm_start(
        config, [["a zebra runs", "the zebra"], ["one okapi"]], None, tmp_path / "old.safetensors"
    )

    assert checkpoint.vocabulary.words == (*stored.vocabulary.words, "zebra")  # okapi occurs once
    assert (config.hidden_size, config.encoder, config.tokens) == (24, TINY_ENCODER, "word")
    assert checkpoint.model.config.dropout == config.dropout == 0.3
    features, tokens = torch.randn(2, checkpoint.model.encoder.feature_size), torch.tensor([[1, 5, 6], [1, 8, UNK]])
    with torch.inference_mode():
        before = stored.model.decoder(features, tokens)
        after = checkpoint.model.eval().decoder(features, tokens)
    assert torch.allclose(after[..., :-1], before, atol=1e-5)
    assert torch.allclose(after[..., -1], before[..., UNK], atol=0.3)
    assert not torch.equal(after[..., -1], before[..., UNK])


def test_what_the_checkpoint_fixes_cannot_be_asked_for_otherwise(tiny_checkpoint_file: Path) -> None:
    sizes = {"hidden_size": 99, "image_size": 96, "layers": 2}
    for name, value in {"cell": "rnn", "encoder": "resnet18", "tokens": "character", **sizes}.items():
        flag = name.replace("_", "-")
        with pytest.raises(OptionError, match=rf"\(--init\) fixes {name}: leave out {name} \(--{flag}\)"):
            warm_start(TrainConfig(**{name: value}), [["a"]], None, tiny_checkpoint_file)
    _, config = warm_start(TrainConfig(cell="lstm", hidden_size=24, image_size=64), [["a"]], None, tiny_checkpoint_file)
    assert (config.cell, config.hidden_size, config.image_size) == ("lstm", 24, 64)


def test_a_shipped_checkpoint_gives_the_encoder_if_it_has_the_right_one(tmp_path: Path) -> None:
    shipped = find_checkpoint()
    assert Start.choose(TrainConfig(), None, None) == Start(encoder_weights=shipped)
    assert Start.choose(TrainConfig(encoder="resnet18"), None, None) == Start()
    assert Start.choose(TrainConfig(), None, str(tmp_path)) == Start(encoder_weights=tmp_path)
    assert Start.choose(TrainConfig(), "flickr8k", None) == Start(init=shipped)
    with pytest.raises(OptionError, match=r"leave out encoder_weights \(--encoder-weights\)"):
        Start.choose(TrainConfig(), "flickr8k", tmp_path)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        warm_start(TrainConfig(), [["a"]], None, tmp_path / "none.safetensors")


@pytest.mark.parametrize(("asked", "size"), [(0, 64), (96, 96)])
def test_pictures_are_as_large_as_those_that_the_encoder_knows_unless_told_otherwise(
    tiny_checkpoint_file: Path, asked: int, size: int
) -> None:
    config = TrainConfig(encoder=TINY_ENCODER, image_size=asked, minimum_count=1)
    start = Start(encoder_weights=tiny_checkpoint_file)
    checkpoint, config = first_checkpoint(config, [["a dog runs"]], None, start)
    assert checkpoint.preprocess.size == config.image_size == size
