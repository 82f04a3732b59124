"""What the decoder is told beside the feature: words and manner, of pictures and of photographs that are not there."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from captioner.training.captions import CaptionTokens
from captioner.training.start import Material
from captioner.training.words import Columns, cross_fitted, fit_to

_QUANTILES = 256
_FEW = 15  # pictures that have a word: too few to tell how the predictor takes them
_FIRES = 0.25  # mean probability of a name, in pictures that have it, from which it is taken as seen


class Known:
    """The words and the manner of training captions, as `Decoder.init_state` takes them."""

    def __init__(self, found: Tensor, material: Material) -> None:
        """`found` (P, 2, W) are the words' probabilities for pictures and for their mirror images."""
        self._found, self._captions, self._sources = found, material.captions, material.sources
        words, vocabulary = material.model.decoder.words, material.vocabulary
        # Without captions in another manner, a network from which training continues chooses the manner itself.
        self._manner = material.model.config.manner and "text" in material.provenance
        self._columns = Columns(words.tokens.cpu(), len(vocabulary))
        self._stand_in = StandIn(found[:, 0], material.labels, words.names)

    @classmethod
    def of(cls, material: Material, features: Tensor) -> Known | None:
        """Of the training pictures with `features` (P, 2, F), where the decoder reads words.

        The predictor is fitted to them first, unless it comes from a checkpoint from which training continues.
        """
        decoder, reads = material.model.decoder, material.model.config.word_inputs
        words = decoder.words
        learned, init = words.size - words.names, material.provenance.get("init", {})
        cross = None
        with torch.no_grad():
            if learned and not init.get("reads_words" if reads else "words"):
                # Once for the same features. They are others, and so is their mean, once a run has gone back to an
                # earlier epoch, whose checkpoint has rounded them. A run that is resumed then finds nothing else.
                known = features, decoder.feature_mean.cpu().clone(), decoder.feature_std.cpu().clone()
                if not (material.fitted and all(map(torch.equal, material.fitted[0], known))):
                    fit: Callable[..., Tensor | None] = cross_fitted if reads else fit_to
                    cross = fit(features, material.labels[:, :learned], words.learned, *known[1:])
                    material.fitted = known, copy.deepcopy(words.learned.state_dict()), cross
                words.learned.load_state_dict(material.fitted[1])
                cross = material.fitted[2]
            # Processes of one run may compute on different machines.
            material.ranks.same(words.parameters())
            if not reads:
                return None
            device = material.ranks.device
            flat = [words(part.to(device).float()).cpu() for part in features.flatten(0, 1).split(4096)]
            found = torch.cat(flat).view(*features.shape[:2], words.size)
            if cross is not None:
                found[..., :learned] = cross
            material.ranks.same([found])
        return cls(found, material)

    def of_captions(self, rows: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
        """Of the captions `rows`, (B,), of pictures that are mirrored or not, (B,)."""
        photographs = self._captions.picture[rows].long()
        there = photographs < len(self._found)
        words = torch.empty(len(rows), self._found.shape[-1])
        words[there] = self._found[photographs[there], mirrored[there].long()]
        if not there.all():
            words[~there] = self._stand_in.draw(words_of_others(self._captions, rows[~there], self._columns))
        return self._with_manner(words, photographs)

    def of_pictures(self, pictures: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Of pictures by number, (P,)."""
        known = self._with_manner(self._found[pictures, 0], pictures)
        return {name: part.to(device) for name, part in known.items()}

    def _with_manner(self, words: Tensor, photographs: Tensor) -> dict[str, Tensor]:
        if not self._manner:
            return {"words": words}
        other = self._sources[photographs] != self._sources[0]  # the pictures have one source
        return {"words": words, "manner": other[:, None].float()}


class StandIn:
    """Probabilities of words drawn for captions without a picture.

    A photograph shows the words of its captions. For each word, the predictor's probabilities for training pictures
    that have the word, and for those that lack it, are known: a value is drawn from the one or from the other. So the
    decoder reads stand-ins that are as unsure, and as often wrong, as the predictor will be. No training picture has
    some of the names. Their probabilities are drawn from those of all names that the classifier recognises.
    """

    def __init__(self, found: Tensor, labels: Tensor, names: int) -> None:
        """`found` (P, W) are probabilities for training pictures that have the words `labels`, (P, W) bool; the last
        `names` of the words are names.
        """
        self._words = found.shape[1]
        learned = self._words - names
        pooled = [found[:, :learned][labels[:, :learned]], self._of_seen_names(found[:, learned:], labels[:, learned:])]
        self._quantiles = torch.zeros(2, self._words, _QUANTILES)
        for word in range(self._words):
            has = labels[:, word]
            present = found[has, word] if has.sum() >= _FEW else pooled[word >= learned]
            for kind, values in enumerate((found[~has, word], present)):
                if len(values):
                    self._quantiles[kind, word] = _quantiles(values)

    @staticmethod
    def _of_seen_names(found: Tensor, labels: Tensor) -> Tensor:
        number = labels.sum(0)
        mean = (found * labels).sum(0) / number.clamp(min=1)
        seen = (number >= _FEW) & (mean >= _FIRES)
        seen = seen if seen.any() else number > 0
        return found[:, seen][labels[:, seen]]

    def draw(self, labels: Tensor) -> Tensor:
        """Words that captions have, (B, W) bool -> probabilities (B, W), with torch's global randomness."""
        places = torch.randint(_QUANTILES, labels.shape)
        return self._quantiles[labels.long(), torch.arange(self._words), places]


def _quantiles(values: Tensor) -> Tensor:
    """Values (n,) -> as many values as are kept, (_QUANTILES,), evenly spread over their order."""
    places = (torch.arange(_QUANTILES) + 0.5) / _QUANTILES * len(values)
    return values.sort().values[places.long()]


def words_of_others(captions: CaptionTokens, rows: Tensor, columns: Columns) -> Tensor:
    """The words that the other captions of the same photograph have, for each of the captions `rows`, (B,): (B, W) bool

    What a caption itself says is not given away. A photograph with one caption shows the words of that one.
    """
    found = []
    for row in rows.tolist():
        photograph = int(captions.picture[row])
        first, last = captions.first[photograph : photograph + 2].tolist()
        begin, end = captions.starts[row : row + 2].tolist()
        parts = [captions.ids[captions.starts[first] : begin], captions.ids[end : captions.starts[last]]]
        others = torch.cat(parts) if last - first > 1 else captions.ids[begin:end]
        found.append(columns.of(others.long()))
    return torch.stack(found)
