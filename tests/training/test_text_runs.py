"""Whole runs with captions without pictures: their records, interruptions, and what training continues from them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_ENCODER

import captioner
from captioner.data.texts import read_texts
from captioner.errors import OptionError, OutputError
from captioner.evaluation.scores import score_captions
from captioner.network.checkpoint import load_checkpoint
from captioner.training.first import Start
from captioner.training.run import train_on
from captioner.training.validation import Validation
from training.runs import TINY, Killed, Shapes, kill_after, metrics, quiet, split_of, weights_without_gradients

CONFIG = dataclasses.replace(TINY, finetune_epochs=None)
Arguments = tuple[object, ...]


@pytest.fixture(autouse=True, scope="module")
def short_fits() -> Iterator[None]:
    """Predictors of words that are fitted in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captioner.training.words._STEPS", 5)
        yield


@pytest.fixture(scope="module")
def finished(
    shapes: Shapes, weights_with_classes: Path, text: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The folder of a run that was never interrupted, and what it said."""
    lines: list[str] = []
    folder = tmp_path_factory.mktemp("finished") / "run"
    start, texts = Start(weights_with_classes), read_texts(text)
    train_on(split_of(shapes), folder, CONFIG, start, say=lines.append, texts=texts)
    return folder, lines


def test_a_run_tells_of_its_texts_and_leaves_a_captioner_that_reads_words(
    finished: tuple[Path, list[str]], shapes: Shapes, text: Path
) -> None:
    folder, lines = finished
    assert "and 105 captions without pictures, of 70 photographs" in lines
    assert [row["stage"] for row in metrics(folder)] == ["decoder", "decoder", "self-critical", "matching"]
    checkpoint = load_checkpoint(folder / "best.safetensors")
    assert checkpoint.provenance["text"] == json.loads((folder / "config.json").read_text())["text"]
    assert checkpoint.provenance["text"] == read_texts(text).origin
    assert checkpoint.provenance["training"]["finetune_epochs"] == 0
    config, vocabulary = checkpoint.model.config, checkpoint.vocabulary
    assert (config.words, config.word_inputs, config.manner) == (10, True, True)
    names = [vocabulary.words[token] for token in checkpoint.model.decoder.words.tokens[config.words :]]
    assert names == ["ball", "beach", "cat", "dog"]
    # No picture has any of the names in its captions, so all their classes are strange.
    predictor = checkpoint.model.decoder.words
    assert predictor.strange.nonzero().flatten().tolist() == predictor.links[0].unique().tolist()
    # The scores are those of the words that the stored network itself predicts.
    validation = split_of(shapes).validation
    captions = captioner.load(folder / "best.safetensors").caption_batch([each.path for each in validation])
    scores = score_captions([caption.text for caption in captions], [each.captions for each in validation])
    assert {name: checkpoint.provenance["validation"][name] for name in scores} == scores


def test_every_weight_of_every_stage_gets_a_gradient(
    shapes: Shapes, weights_with_classes: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = weights_without_gradients(monkeypatch)
    config = dataclasses.replace(CONFIG, epochs=1)
    train_on(split_of(shapes), tmp_path / "run", config, Start(weights_with_classes), say=quiet, texts=read_texts(text))
    assert not without


# 144 captions of pictures and 105 others: 16 steps an epoch of the decoder, then 2 self-critical ones.
@pytest.mark.parametrize("steps", [5, 33, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 16, 17, 34))])
def test_a_killed_run_goes_on_bit_for_bit(
    finished: tuple[Path, list[str]],
    shapes: Shapes,
    weights_with_classes: Path,
    text: Path,
    tmp_path: Path,
    steps: int,
) -> None:
    arguments = split_of(shapes), tmp_path / "run", CONFIG, Start(weights_with_classes)
    texts = read_texts(text)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(Killed):
            train_on(*arguments, say=quiet, seconds_between_states=0.0, texts=texts)
    train_on(*arguments, resume=True, say=quiet, texts=texts)
    assert (tmp_path / "run/best.safetensors").read_bytes() == (finished[0] / "best.safetensors").read_bytes()
    assert metrics(tmp_path / "run") == metrics(finished[0])


@pytest.mark.slow
def test_a_run_that_goes_back_to_an_earlier_epoch_goes_on_bit_for_bit(
    shapes: Shapes, weights_with_classes: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of that epoch has rounded the encoder, and so the features of what follows."""
    config = dataclasses.replace(CONFIG, epochs=3, patience=0.1, match_epochs=0)
    scores, told = Validation.scores, iter(())
    monkeypatch.setattr(Validation, "scores", lambda self, given: {**scores(self, given), "cider": next(told)})

    def run(folder: Path, resume: bool = False) -> list[dict[str, Any]]:
        arguments = split_of(shapes), folder, config, Start(weights_with_classes), resume, quiet, 0.0
        train_on(*arguments, texts=read_texts(text))
        return metrics(folder)

    told = iter((50.0, 40.0, *([60.0] * 9)))
    whole = run(tmp_path / "whole")
    told = iter((50.0, 40.0, *([60.0] * 9)))
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 33)
        with pytest.raises(Killed):
            run(tmp_path / "run")
    assert run(tmp_path / "run", resume=True) == whole
    assert (tmp_path / "run/best.safetensors").read_bytes() == (tmp_path / "whole/best.safetensors").read_bytes()


def test_a_run_does_not_go_on_with_other_texts_or_none(
    finished: tuple[Path, list[str]], shapes: Shapes, weights_with_classes: Path, text: Path, tmp_path: Path
) -> None:
    (tmp_path / text.name).write_text(text.read_text().replace("beach", "grass"))
    config = dataclasses.replace(CONFIG, finetune_epochs=0)
    for texts in (read_texts(tmp_path / text.name), None):
        with pytest.raises(OutputError, match="other options or other data"):
            train_on(split_of(shapes), finished[0], config, Start(weights_with_classes), True, quiet, texts=texts)


@pytest.mark.slow
def test_texts_of_which_no_word_can_be_predicted_teach_a_plain_decoder(
    shapes: Shapes, tiny_weights: Path, text: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, concepts=0)
    path = train_on(split_of(shapes), tmp_path / "run", config, Start(tiny_weights), say=quiet, texts=read_texts(text))
    checkpoint = load_checkpoint(path)
    assert not checkpoint.model.config.word_inputs
    assert "beach" in checkpoint.vocabulary.words


class TestCommand:
    @pytest.fixture
    def train(
        self, command: Callable[..., tuple[int, str, str]], shapes: Shapes, tmp_path: Path
    ) -> Callable[..., tuple[int, str, str]]:
        data = ("--captions", shapes[0], "--images", shapes[1], "--train-list", shapes[2], "--val-list", shapes[3])

        def train(*arguments: object) -> tuple[int, str, str]:
            return command("train", *data, "--output", tmp_path / "run", *arguments)

        return train

    def test_text_is_learned_from(
        self,
        train: Callable[..., tuple[int, str, str]],
        command: Callable[..., tuple[int, str, str]],
        weights_with_classes: Path,
        tmp_path: Path,
    ) -> None:
        (tmp_path / "more.txt").write_text("a dog with a cat on the beach\na cat\n")
        status, out, err = train(
            *("--text", tmp_path / "more.txt", "--encoder", TINY_ENCODER, "--encoder-weights", weights_with_classes),
            *("--epochs", 1, "--scst-epochs", 0, "--match-epochs", 0, "--image-size", 32, "--hidden-size", 8),
            *("--embedding-size", 8, "--minimum-count", 1, "--concepts", 5),
        )
        assert status == 0, err
        assert "and 2 captions without pictures, of 2 photographs" in err
        checkpoint = load_checkpoint(Path(out.strip()))
        assert checkpoint.provenance["text"]["file"] == "more.txt"
        config = checkpoint.model.config
        assert (config.words, config.names, config.word_inputs, config.manner) == (5, 3, True, False)
        assert json.loads((tmp_path / "run/config.json").read_text())["given"]["text"] == str(tmp_path / "more.txt")
        # The folder of the run knows its text, without which it would be another run.
        status, _, err = command("train", "--resume", "--output", tmp_path / "run")
        assert status == 0, err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--finetune-epochs", 1), "captions without pictures (--text) train the decoder alone: add --finetune-ep"),
            (("--epochs", 0, "--scst-epochs", 0, "--match-epochs", 0), "all stages have 0 epochs"),
            (("--text", "none.jsonl"), "none.jsonl: no such file or folder"),
            (("--text-share", 1.0), "text_share must be at most 0.95"),
        ],
    )
    def test_what_does_not_go_with_text_is_refused(
        self,
        train: Callable[..., tuple[int, str, str]],
        text: Path,
        tiny_weights: Path,
        tmp_path: Path,
        arguments: Arguments,
        message: str,
    ) -> None:
        encoder = ("--encoder", TINY_ENCODER, "--encoder-weights", tiny_weights)
        status, out, err = train(*encoder, "--text", text, *arguments)
        assert (status, out) == (2, "")
        assert message in err.splitlines()[-1]
        assert not (tmp_path / "run").exists()

    @pytest.mark.slow
    @pytest.mark.parametrize("with_text", [True, False])
    def test_training_continues_with_and_without_text(
        self,
        train: Callable[..., tuple[int, str, str]],
        finished: tuple[Path, list[str]],
        text: Path,
        tmp_path: Path,
        with_text: bool,
    ) -> None:
        best = finished[0] / "best.safetensors"
        more = ("--text", text) if with_text else ("--finetune-epochs", 1)
        options = ("--minimum-count", 1, "--epochs", 1, "--scst-epochs", 1, "--scst-samples", 2, "--match-epochs", 1)
        status, _, err = train("--init", best, *options, *more)
        assert status == 0, err
        before, after = load_checkpoint(best), load_checkpoint(tmp_path / "run/best.safetensors")
        chosen = after.model.config.evidence
        assert after.model.config == dataclasses.replace(before.model.config, dropout=0.5, evidence=chosen)
        assert after.provenance["init"]["provenance"]["text"] == before.provenance["text"]
        assert ("text" in after.provenance) == with_text
        words = before.model.decoder.words.state_dict(), after.model.decoder.words.state_dict()
        for name in ("classifier.weight", "strange"):
            assert torch.equal(words[0][name], words[1][name])
        if with_text:  # the predictor of a checkpoint is not fitted anew
            assert torch.equal(words[0]["learned.weight"], words[1]["learned.weight"])
        rows = metrics(tmp_path / "run")
        stages = ["decoder", *([] if with_text else ["end to end"]), "self-critical", "matching"]
        assert [row["stage"] for row in rows] == stages
        assert rows[0]["loss"] < metrics(finished[0])[0]["loss"]

    def test_a_checkpoint_without_words_begins_to_read_them(
        self, train: Callable[..., tuple[int, str, str]], tiny_checkpoint_file: Path, text: Path
    ) -> None:
        epochs = ("--epochs", 1, "--scst-epochs", 0, "--match-epochs", 0, "--minimum-count", 1, "--concepts", 5)
        status, out, err = train("--init", tiny_checkpoint_file, "--text", text, *epochs)
        assert status == 0, err
        decoder = load_checkpoint(Path(out.strip())).model.decoder
        assert (decoder.config.words, decoder.config.word_inputs, decoder.config.manner) == (5, True, True)
        assert decoder.words.learned.weight.abs().sum() > 0


def test_end_to_end_training_is_not_chosen_with_text() -> None:
    assert CONFIG.for_set(144, 48, text=True).finetune_epochs == 0
    assert CONFIG.for_set(144, 48).finetune_epochs == 200
    with pytest.raises(OptionError, match="add --finetune-epochs 0"):
        TINY.for_set(144, 48, text=True)
