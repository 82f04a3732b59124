"""Where first weights come from. With those of a checkpoint new words come in, and the old ones lose nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY_ENCODER, make_checkpoint
from network.checkpoint_files import with_words

from captioner.data.texts import Texts
from captioner.errors import CheckpointError, OptionError
from captioner.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from captioner.network.header import find_checkpoint
from captioner.training.captions import CaptionTokens
from captioner.training.config import TrainConfig
from captioner.training.first import Start, first_checkpoint, nearest_source, warm_start
from captioner.vocab import UNK, Vocabulary


def test_old_words_keep_their_logits_and_new_ones_begin_as_unknown(tmp_path: Path) -> None:
    old = make_checkpoint()
    save_checkpoint(tmp_path / "old.safetensors", old)
    stored = load_checkpoint(tmp_path / "old.safetensors")
    config = TrainConfig(minimum_count=2, dropout=0.3)
    checkpoint, config, _ = warm_start(
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
    _, config, _ = warm_start(
        TrainConfig(cell="lstm", hidden_size=24, image_size=64), [["a"]], None, tiny_checkpoint_file
    )
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
    checkpoint, config, _ = first_checkpoint(config, [["a dog runs"]], None, start)
    assert checkpoint.preprocess.size == config.image_size == size


def texts_of(**sources: list[list[str]]) -> Texts:
    groups = [(group, number) for number, those in enumerate(sources.values()) for group in those]
    return Texts([group for group, _ in groups], [number for _, number in groups], list(sources), {})


OWN = [["a dog runs", "a red dog"], ["a cat runs"]]
TEXTS = texts_of(one=[["a zebra"], ["a zebra", "two zebras"]], two=[["the umbrella runs"], ["umbrella"], ["okapi"]])


class TestWords:
    """Of a new network, whose encoder came with a classifier or not, with captions without pictures or not."""

    @pytest.fixture(autouse=True)
    def english(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("captioner.training.words._ENGLISH", {"a"})

    def first(self, weights: Path, texts: Texts | None, **options: object) -> Checkpoint:
        config = TrainConfig(encoder=TINY_ENCODER, minimum_count=1, hidden_size=8, **options)  # type: ignore[arg-type]
        return first_checkpoint(config, OWN, texts, Start(encoder_weights=weights))[0]

    def test_words_are_learned_and_named_and_read_with_texts(self, weights_with_classes: Path) -> None:
        first = self.first(weights_with_classes, TEXTS)
        config, predictor = first.model.config, first.model.decoder.words
        tokens = [first.vocabulary.words[token] for token in predictor.tokens]
        assert tokens[: config.words] == ["cat", "dog", "red"]
        assert tokens[config.words :] == ["cat", "dog", "umbrella", "zebra", "zebras"]  # in the order of the table
        assert (config.word_inputs, config.manner, config.names) == (True, True, 5)
        assert predictor.links[:, predictor.links[1] == 3].tolist() == [[340], [3]]
        state = torch.load(weights_with_classes, weights_only=True)
        assert torch.equal(predictor.classifier.weight, state["fc.weight"])
        assert not predictor.classifier.weight.requires_grad

    def test_one_source_has_one_manner(self, weights_with_classes: Path) -> None:
        config = self.first(weights_with_classes, texts_of(one=TEXTS.captions)).model.config
        assert (config.word_inputs, config.manner) == (True, False)

    def test_without_texts_words_are_predicted_but_not_read(self, weights_with_classes: Path) -> None:
        config = self.first(weights_with_classes, None).model.config
        assert (config.words, config.names, config.word_inputs, config.manner) == (3, 2, False, False)

    def test_without_a_classifier_there_are_no_names(self, tiny_weights: Path) -> None:
        config = self.first(tiny_weights, TEXTS).model.config
        assert (config.words, config.names, config.links, config.word_inputs) == (3, 0, 0, True)

    def test_without_any_word_there_is_nothing_to_read(self, tiny_weights: Path) -> None:
        config = self.first(tiny_weights, TEXTS, concepts=0).model.config
        assert (config.words, config.word_inputs, config.manner) == (0, False, False)

    def test_a_checkpoint_hands_on_its_classifier(self, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "c", with_words(tiny_checkpoint))
        predictor = self.first(tmp_path / "c", None).model.decoder.words
        assert torch.equal(
            predictor.classifier.weight, load_checkpoint(tmp_path / "c").model.decoder.words.classifier.weight
        )


@pytest.mark.parametrize(
    ("minimum", "per_word", "words"),
    [
        (1, 7500, {"zebra", "zebras", "umbrella", "okapi", "the", "two"}),
        (2, 7500, {"zebra", "umbrella"}),
        (1, 3, {"zebra", "umbrella"}),  # one in three of six captions
        (1, 2, set()),
    ],
)
def test_words_of_texts_must_be_frequent_enough_to_learn_and_among_the_texts(
    tiny_weights: Path, minimum: int, per_word: int, words: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.training.first._TEXT_CAPTIONS_PER_WORD", per_word)
    config = TrainConfig(encoder=TINY_ENCODER, minimum_count=minimum, hidden_size=8)
    own, both = (
        first_checkpoint(config, OWN, texts, Start(tiny_weights))[0].vocabulary.words for texts in (None, TEXTS)
    )
    assert both[: len(own)] == own
    assert set(both[len(own) :]) - {"a", "runs"} == words


@pytest.mark.parametrize("init", [False, True])
def test_the_first_captions_that_have_a_word_decide_how_it_is_spelled(
    tiny_checkpoint: Checkpoint, tiny_weights: Path, tmp_path: Path, init: bool
) -> None:
    """Those of the checkpoint from which training continues, then those of pictures, then those without."""
    words = (*tiny_checkpoint.vocabulary.words[:-2], "hund", "wiese")
    known = Vocabulary(words, spellings={"wiese": "Wiese"})
    save_checkpoint(tmp_path / "c", replace(with_words(tiny_checkpoint), vocabulary=known))
    start = Start(init=tmp_path / "c") if init else Start(tiny_weights)
    config = TrainConfig(minimum_count=1, **({} if init else {"encoder": TINY_ENCODER, "hidden_size": 8}))
    own = [["ein Hund mit Stock", "ein Hund auf der wiese"]]
    texts = texts_of(one=[["ein hund mit stock", "ein Zebra auf der Wiese"]])
    vocabulary = first_checkpoint(config, own, texts, start)[0].vocabulary
    assert vocabulary.spellings == {
        "stock": "Stock",
        "zebra": "Zebra",
        **({"wiese": "Wiese"} if init else {"hund": "Hund"}),
    }


def test_texts_are_as_the_captions_of_pictures_are_characters_or_words(tiny_weights: Path) -> None:
    config = TrainConfig(encoder=TINY_ENCODER, minimum_count=1, hidden_size=8)
    chinese, *_ = first_checkpoint(config, [["一只狗"]], texts_of(one=[["一只猫"]]), Start(tiny_weights))
    assert chinese.vocabulary.tokens == "character"
    assert "猫" in chinese.vocabulary.words


def test_the_nearest_source_is_the_one_with_the_most_similar_words() -> None:
    vocabulary = Vocabulary.build(["a dog cat runs zebra the umbrella"])
    texts = texts_of(zebras=[["the zebra"]] * 9, dogs=[["a dog runs"], ["a cat"]], nothing=[["okapi"]])
    for own, nearest in ((OWN, 1), ([["the zebra"]], 0), ([["okapi"]], 2)):
        captions = CaptionTokens.of([*own, *texts.captions], vocabulary)
        assert nearest_source(captions, len(own), texts, len(vocabulary)) == nearest


class TestInit:
    @pytest.fixture
    def file(self, tiny_checkpoint: Checkpoint, tmp_path: Path) -> Path:
        save_checkpoint(tmp_path / "words.safetensors", with_words(tiny_checkpoint))
        return tmp_path / "words.safetensors"

    def test_the_predictor_is_that_of_the_checkpoint(self, file: Path) -> None:
        old = load_checkpoint(file).model
        captions = [["a zebra runs", "the zebra"], ["a zebra"]]
        for texts in (None, texts_of(one=[["an okapi"]], two=[["okapi", "okapi"]])):
            first, *_ = warm_start(TrainConfig(minimum_count=1, concepts=50), captions, texts, file)
            assert (first.model.config.words, first.model.config.manner) == (3, True)
            new = first.model.decoder.words.state_dict()
            rates = new.pop("rates")
            assert rates.tolist() == [1.0] * len(old.decoder.words.rates) + [0.0] * (
                len(rates) - len(old.decoder.words.rates)
            )
            assert len(rates) == len(first.vocabulary)
            assert all(torch.equal(tensor, old.decoder.words.state_dict()[name]) for name, tensor in new.items())
            assert ("okapi" in first.vocabulary.words) == (texts is not None)
            assert first.model.decoder.h0.weight.shape == old.decoder.h0.weight.shape

    def test_a_checkpoint_without_a_predictor_gets_one(self, tiny_checkpoint_file: Path) -> None:
        first, *_ = warm_start(
            TrainConfig(minimum_count=1), [["a dog"], ["a dog"], ["a zebra"]], None, tiny_checkpoint_file
        )
        config, predictor = first.model.config, first.model.decoder.words
        assert (config.words, config.names, config.word_inputs) == (1, 0, False)
        assert [first.vocabulary.words[token] for token in predictor.tokens] == ["zebra"]

    @pytest.mark.parametrize("reads", [False, True])
    def test_one_with_names_alone_keeps_them(self, tiny_checkpoint: Checkpoint, tmp_path: Path, reads: bool) -> None:
        old = with_words(tiny_checkpoint, words=0, word_inputs=reads, manner=False)
        save_checkpoint(tmp_path / "c", old)
        first, *_ = warm_start(TrainConfig(minimum_count=1), [["a dog"], ["a dog"], ["a zebra"]], None, tmp_path / "c")
        predictor = first.model.decoder.words
        # A decoder that reads names has no place for more words.
        assert (first.model.config.words, first.model.config.names) == (0 if reads else 1, 2)
        assert predictor.tokens.tolist()[-2:] == old.model.decoder.words.tokens.tolist()

    @pytest.mark.parametrize("english", [True, False])
    def test_with_texts_a_decoder_begins_to_read_words_with_weights_of_zero(
        self, english: bool, tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("captioner.training.words._ENGLISH", {"a"} if english else {"a", "and no other"})
        save_checkpoint(tmp_path / "c", with_words(tiny_checkpoint, word_inputs=False, manner=False))
        old = load_checkpoint(tmp_path / "c").model.decoder
        first, *_ = warm_start(TrainConfig(minimum_count=1), OWN, TEXTS, tmp_path / "c")
        new = first.model.decoder.eval()
        assert (new.config.word_inputs, new.config.manner) == (True, True)
        names = [first.vocabulary.words[token] for token in new.words.tokens[new.config.words :]]
        assert ("zebra" in names) == (new.config.names > 0) == english
        features = torch.rand(3, old.feature_mean.numel())
        for one, other in zip(new.init_state(features), old.init_state(features), strict=True):
            torch.testing.assert_close(one, other)
