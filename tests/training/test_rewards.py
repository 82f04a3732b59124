"""Self-critical training: sampled captions, their rewards, and a gradient that follows them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from inference.decoders import decode

from captioner.evaluation.metrics import Cider, DocumentFrequencies
from captioner.inference.rules import Rules
from captioner.network.model import Decoder, ModelConfig
from captioner.options import DecodeOptions
from captioner.training.config import TrainConfig
from captioner.training.ranks import Ranks
from captioner.training.rewards import Rewards, advantages, sample_captions, self_critical_loss
from captioner.training.stages import SelfCriticalStage
from captioner.vocab import END, PAD, START, UNK, Vocabulary

TEXTS = [("a dog runs", "the dog runs fast"), ("a cat sits",), ("a man with a ball",)]
VOCABULARY = Vocabulary.build([text for those in TEXTS for text in those])
RULES = Rules.of(DecodeOptions("sample", max_length=6), VOCABULARY)


def tokens_of(*texts: str) -> torch.Tensor:
    rows = [torch.tensor([START, *VOCABULARY.encode(text), END]) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def test_the_reward_is_cider_d_with_the_end_as_a_word() -> None:
    rewards = Rewards(TEXTS, VOCABULARY).of([0, 1, 0], tokens_of("a dog runs", "a dog runs", "the dog runs fast"))
    references = [[[*text.split(), "<end>"] for text in those] for those in TEXTS]
    cider = Cider(references.__getitem__, DocumentFrequencies.of(references))
    assert rewards[0].item() == pytest.approx(cider.score(0, ["a", "dog", "runs", "<end>"]) / 100)
    assert rewards[0] > rewards[1]
    broken_off = tokens_of("a man with a ball")[:, :-2]  # "a man with a"
    whole = Rewards(TEXTS, VOCABULARY).of([2, 2], torch.cat([broken_off, broken_off]))
    ended = torch.cat([broken_off, torch.tensor([[END]])], 1)
    assert Rewards(TEXTS, VOCABULARY).of([2], ended)[0] < Rewards(TEXTS, VOCABULARY).of([2], tokens_of(TEXTS[2][0]))[0]
    assert whole[0] == whole[1]


def test_samples_end_once_and_follow_the_global_seed() -> None:
    torch.manual_seed(0)
    decoder = Decoder(ModelConfig("none", len(VOCABULARY), 8, 8, 0.0, "lstm", 1), 3).eval()
    features = torch.randn(40, 3)
    torch.manual_seed(1)
    tokens = sample_captions(decoder, features, RULES)
    torch.manual_seed(1)
    assert torch.equal(tokens, sample_captions(decoder, features, RULES))
    assert not torch.equal(tokens, sample_captions(decoder, features, RULES))
    assert tokens.shape[1] <= 7
    assert (tokens[:, 0] == START).all()
    assert not ((tokens[:, 1:] == UNK) | (tokens[:, 1:] == START)).any()
    for row in tokens.tolist():
        if END in row:
            assert set(row[row.index(END) + 1 :]) <= {PAD}
        else:
            assert PAD not in row


def test_samples_obey_the_stutter_rule_as_captions_do() -> None:
    """What decoding would never write is not worth learning."""
    vocabulary = Vocabulary.build(["dog and cat"])
    decoder = Decoder(ModelConfig("none", len(vocabulary), 8, 8, 0.0, "lstm", 1), 3).eval()
    stuttering = {}
    for allow in (False, True):
        rules = Rules.of(DecodeOptions("sample", max_length=8, allow_stutter=allow), vocabulary)
        torch.manual_seed(0)
        drawn = sample_captions(decoder, torch.randn(200, 3), rules)
        texts = [" ".join(vocabulary.decode(row)) for row in drawn.tolist()]
        stuttering[allow] = sum("dog and dog" in text or "cat and cat" in text for text in texts)
    assert stuttering[True] > 10
    assert stuttering[False] == 0


def test_self_critical_training_draws_by_the_rules_of_captions() -> None:
    vocabulary = Vocabulary.build(["a dog and a cat"])
    captions = SimpleNamespace(lengths=lambda: torch.tensor([3, 7]))
    decoder = Decoder(ModelConfig("none", len(vocabulary), 8, 8, 0.0, "lstm", 1), 3)
    model = SimpleNamespace(decoder=decoder, config=SimpleNamespace(word_inputs=False))
    data = {"paths": ["a.jpg"], "vocabulary": vocabulary, "captions": captions, "features": lambda: torch.empty(0)}
    material = SimpleNamespace(config=TrainConfig(), model=model, provenance={}, ranks=Ranks(), **data)
    stage = SelfCriticalStage(material, [["a dog and a cat"]])  # type: ignore[arg-type]
    stage.prepare()
    assert stage._rules == Rules.of(DecodeOptions("sample", max_length=7, no_repeat_ngram=0), vocabulary)
    assert stage._rules.conjunctions == (*vocabulary.encode("and"),)


def test_a_draw_among_one_likely_word_each_is_greedy_decoding() -> None:
    """Captions end one after the other, and the others' states must stay theirs."""
    torch.manual_seed(0)
    decoder = Decoder(ModelConfig("none", len(VOCABULARY), 8, 8, 0.0, "lstm", 1), 3).eval()
    with torch.no_grad():
        decoder.output.weight.mul_(1e6)
    features = torch.randn(40, 3)
    found = [[token for token in row if token != PAD] for row in sample_captions(decoder, features, RULES).tolist()]
    greedy = decode(decoder, features, Rules(DecodeOptions("greedy", max_length=6)))
    assert found == [[START, *those[0].tokens] for those in greedy]
    assert len({len(row) for row in found}) > 2


def test_the_loss_is_the_sum_over_tokens_that_are_no_padding() -> None:
    torch.manual_seed(0)
    decoder = Decoder(ModelConfig("none", len(VOCABULARY), 8, 8, 0.0, "lstm", 1), 3).eval()
    features, weights = torch.randn(200, 3), torch.randn(200)
    tokens = sample_captions(decoder, features, Rules.of(DecodeOptions("sample", max_length=9), VOCABULARY))
    logprobs = decoder(features, tokens[:, :-1]).log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    real = tokens[:, 1:] != PAD
    expected = -(weights[:, None] * logprobs * real).sum() / real.sum()
    torch.testing.assert_close(self_critical_loss(decoder, features, tokens, weights), expected)


def test_each_sample_is_measured_against_the_others_of_its_picture() -> None:
    values = advantages(torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]]))
    assert values.tolist() == [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]


def test_a_step_makes_the_rewarded_caption_likelier_and_the_other_less() -> None:
    torch.manual_seed(0)
    decoder = Decoder(ModelConfig("none", len(VOCABULARY), 16, 8, 0.0, "lstm", 1), 3)
    features = torch.randn(1, 3).expand(2, 3)
    tokens = tokens_of("a dog runs", "a cat sits")

    def logprobs() -> torch.Tensor:
        with torch.no_grad():
            every = decoder(features, tokens[:, :-1]).log_softmax(-1)
        return every.gather(-1, tokens[:, 1:, None]).squeeze(-1).sum(1)

    before = logprobs()
    optimiser = torch.optim.SGD(decoder.parameters(), lr=0.5)
    self_critical_loss(decoder, features, tokens, torch.tensor([1.0, -1.0])).backward()
    optimiser.step()
    after = logprobs()
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_captions_are_split_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """All captions of a large set as words would take gigabytes."""
    split: list[str] = []
    plain = Vocabulary.tokenise
    monkeypatch.setattr(Vocabulary, "tokenise", lambda self, text: split.append(text) or plain(self, text))
    rewards = Rewards(TEXTS, VOCABULARY, counted=2)
    assert split == [*TEXTS[0], *TEXTS[1]]
    samples = tokens_of("a cat sits", "a cat", "cat sits a")
    split.clear()
    assert rewards.of([1, 1, 1], samples)[0] > 0
    assert split == [*TEXTS[1]]  # once for all samples of a picture
    split.clear()
    Rewards(TEXTS, VOCABULARY)
    assert split == [text for those in TEXTS for text in those]
