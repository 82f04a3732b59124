"""The network before the first step of a run: where its weights come from, and what it is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captioner.data.texts import Texts
from captioner.errors import OptionError
from captioner.files import AnyPath, sha256_of
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.encoder import Encoder
from captioner.network.header import find_checkpoint, models
from captioner.network.model import CaptionModel, Decoder, ModelConfig
from captioner.network.recurrent import has_memory
from captioner.training.captions import CaptionTokens
from captioner.training.config import FIXED_BY_INIT, TrainConfig, refuse_fixed
from captioner.training.encoder_weights import load_encoder_weights
from captioner.training.words import frequent_words, names_in
from captioner.vocab import END, START, UNK, Vocabulary, fitting_tokens

# A word of captions without pictures enters the vocabulary when one in so many of them has it.
_TEXT_CAPTIONS_PER_WORD = 7500
_READ = "matcher.sentences.embedding.weight"
EVIDENCE = (0.0, 0.5, 1.0)  # weights of the words that are found: a run begins with the last, and then chooses


@dataclasses.dataclass(frozen=True)
class Start:
    """Where the first weights come from.

    `encoder_weights` is a torchvision state dict or one of our checkpoints; None means torchvision's download. `init`
    is a checkpoint from which training continues, and which fixes encoder, decoder and vocabulary.
    """

    encoder_weights: Path | None = None
    init: Path | None = None

    @classmethod
    def choose(cls, config: TrainConfig, init: AnyPath | None, weights: AnyPath | None) -> Start:
        """From what was asked for. By default, a shipped checkpoint gives the encoder, if it has the right one.

        Raises OptionError for both at once, CheckpointError for a short name that does not exist.
        """
        if init and weights:
            raise OptionError("init (--init) brings its own encoder: leave out encoder_weights (--encoder-weights)")
        if init:
            return cls(init=find_checkpoint(init))
        if (config.epochs, config.finetune_epochs, config.scst_epochs) == (0, 0, 0):
            how = "give a checkpoint with init (--init), or set --epochs to at least 1"
            raise OptionError(f"with matching alone, captions would stay those of random weights: {how}")
        shipped = (model.path for model in models() if model.encoder == config.encoder)
        return cls(Path(weights) if weights else next(shipped, None))


def first_checkpoint(
    config: TrainConfig, captions: Sequence[Sequence[str]], texts: Texts | None, start: Start
) -> tuple[Checkpoint, TrainConfig, CaptionTokens]:
    """The network before the first step, with where its weights came from, the config that describes it, and all
    captions in the tokens of its vocabulary.

    `captions[p]` are those of picture p, and `texts` are captions without pictures, which come after them.
    """
    if start.init:
        return warm_start(config, captions, texts, start.init)
    vocabulary, tokens = _read(config, captions, texts)
    encoder = Encoder(config.encoder)
    source, preprocess, classifier = load_encoder_weights(encoder, config.encoder, start.encoder_weights)
    preprocess = dataclasses.replace(preprocess, size=config.image_size or preprocess.size)
    config = dataclasses.replace(config, image_size=preprocess.size)
    learned = frequent_words(tokens, len(captions), vocabulary, config.concepts)
    names, links = names_in(vocabulary) if classifier else (learned[:0], learned.new_empty(2, 0))
    options = [field.name for field in dataclasses.fields(ModelConfig) if hasattr(config, field.name)]
    sizes: dict[str, Any] = {name: getattr(config, name) for name in options}
    sizes |= {"vocabulary_size": len(vocabulary), "words": len(learned), "names": len(names), "links": links.shape[1]}
    sizes |= {"evidence": EVIDENCE[-1] if len(learned) + len(names) else 0.0}
    if texts and len(learned) + len(names):
        sizes |= {"word_inputs": True, "manner": len(texts.sources) > 1}
    # Without these, a cell with a memory learns more slowly than a GRU: docs/recurrent-networks.md.
    if has_memory(config.cell):
        sizes |= {"hidden_scale": 3.0, "linear_memory": True}
    network = ModelConfig(**sizes)
    decoder = Decoder(network, encoder.feature_size)
    if decoder.words.size:
        decoder.words.tokens.copy_(torch.cat([learned, names]))
    if classifier and len(names):
        decoder.words.classifier.load_state_dict(classifier)
        decoder.words.links.copy_(links)
    model = CaptionModel(network, encoder, decoder)
    return Checkpoint(model, vocabulary, preprocess, {"encoder_weights": source}), config, tokens


def _read(
    config: TrainConfig, captions: Sequence[Sequence[str]], texts: Texts | None, known: Vocabulary | None = None
) -> tuple[Vocabulary, CaptionTokens]:
    """A vocabulary and all captions in its tokens. Its words are those of `known`, the frequent words of the captions,
    and those of `texts`, which only have to be known.
    """
    of_pictures = [text for those in captions for text in those]
    tokens = known.tokens if known else fitting_tokens(of_pictures) if config.tokens == "auto" else config.tokens
    parts = [known] if known else []
    parts.append(Vocabulary.build(of_pictures, config.minimum_count, tokens))
    if texts:
        minimum = max(config.minimum_count, len(texts) // _TEXT_CAPTIONS_PER_WORD)
        parts.append(Vocabulary.build((text for those in texts.captions for text in those), minimum, tokens))
    # The first part that has a word decides how it is spelled.
    written = {word: part.spellings.get(word, word) for part in reversed(parts) for word in part.words}
    spellings = {word: form for word, form in written.items() if form != word}
    vocabulary = Vocabulary(tuple(dict.fromkeys(word for part in parts for word in part.words)), tokens, spellings)
    return vocabulary, CaptionTokens.of(chain(captions, texts.captions if texts else ()), vocabulary)


def warm_start(
    config: TrainConfig, captions: Sequence[Sequence[str]], texts: Texts | None, path: Path
) -> tuple[Checkpoint, TrainConfig, CaptionTokens]:
    """The captioner in `path` with the new words of the captions in its vocabulary, the config that fits it, and all
    captions in its tokens.

    A new word begins as a copy of `<unk>`, which stood for it before. Everything in FIXED_BY_INIT is as in the
    checkpoint. A checkpoint without a word predictor gets one, and with `texts` one that does not read words begins to
    read them, with weights of zero. Raises OptionError when the config asks for something else than the checkpoint,
    and CheckpointError.
    """
    checkpoint = load_checkpoint(path)
    known, old = checkpoint.vocabulary, checkpoint.model.config
    of_checkpoint = {"image_size": checkpoint.preprocess.size, "tokens": known.tokens, **dataclasses.asdict(old)}
    fixed = {name: of_checkpoint[name] for name in FIXED_BY_INIT}
    standard = TrainConfig()
    refuse_fixed(name for name in fixed if getattr(config, name) not in (fixed[name], getattr(standard, name)))
    vocabulary, tokens = _read(config, captions, texts, known)
    words = vocabulary.words
    wanted = 0 if old.words or old.word_inputs else config.concepts
    learned = frequent_words(tokens, len(captions), vocabulary, wanted)
    network = dataclasses.replace(old, vocabulary_size=len(words), words=old.words or len(learned))
    if network.words and not old.words:
        network = dataclasses.replace(network, evidence=EVIDENCE[-1])
    state, predictor = checkpoint.model.state_dict(), checkpoint.model.decoder.words
    if old.words:
        learned = predictor.tokens[: old.words]
    if old.names:
        names, links = predictor.tokens[old.words :], predictor.links
        if texts and not old.word_inputs:  # it may know more names now
            names, links = names_in(vocabulary)
        network = dataclasses.replace(network, names=len(names), links=links.shape[1])
        state["decoder.words.links"] = links
        learned = torch.cat([learned, names])
    if texts and not old.word_inputs:
        reads = len(learned) > 0
        network = dataclasses.replace(network, word_inputs=reads, manner=reads and len(texts.sources) > 1)
    model = CaptionModel.create(dataclasses.replace(network, dropout=config.dropout))
    new = model.state_dict()
    rates = F.pad(predictor.rates, (0, len(words) - len(known))) if predictor.size else new.get("decoder.words.rates")
    state |= {"decoder.words.tokens": learned, "decoder.words.rates": rates}
    for key in ("decoder.h0.weight", "decoder.c0.weight"):
        if key in state:
            state[key] = F.pad(state[key], (0, new[key].shape[1] - state[key].shape[1]))
    # A new predictor begins with its own weights, and one without names has no classifier.
    state |= {name: new[name] for name in new.keys() - state.keys() if name.startswith("decoder.words.learned.")}
    state = {name: state[name] for name in new}
    for key in ("decoder.embedding.weight", "decoder.output.weight", "decoder.output.bias", _READ):
        if key not in state:
            continue
        rows = state[key]
        more = rows[UNK].expand(len(words) - len(rows), *rows.shape[1:])
        # A little noise, so that the new words can become different from each other.
        state[key] = torch.cat([rows, more + 0.01 * rows.std() * torch.randn(more.shape)])
    model.load_state_dict(state)
    source = {"source": f"checkpoint {path.name}", "sha256": sha256_of(path)}
    init = {**source, "words": old.words, "reads_words": old.word_inputs, "provenance": checkpoint.provenance}
    origin = {"encoder_weights": source, "init": init}
    return Checkpoint(model, vocabulary, checkpoint.preprocess, origin), dataclasses.replace(config, **fixed), tokens


def nearest_source(captions: CaptionTokens, pictures: int, texts: Texts, words: int) -> int:
    """The number of the source whose words are most like those in the captions of the first `pictures`, by the tokens
    of all captions in a vocabulary of so many words.
    """
    owned, owner = captions.with_owners(len(captions.first) - 1)
    source = torch.cat([torch.full((pictures,), -1), torch.tensor(texts.source)])[owner]

    def counts(number: int) -> Tensor:
        found = torch.bincount(owned[source == number], minlength=words).float()
        found[[START, END]] = 0.0
        return found

    own, surprises = counts(-1), []
    for number in range(len(texts.sources)):
        theirs = counts(number) + 1.0  # no word is impossible
        surprises.append(float(-(own * (theirs / theirs.sum()).log()).sum()))
    return surprises.index(min(surprises))
