"""Tokenised captions in flat arrays, and the batches that are cut from them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.vocab import END, PAD, START, UNK, Vocabulary


@dataclass(frozen=True)
class CaptionTokens:
    """All captions of a split, N captions of P pictures.

    Caption i is `ids[starts[i] : starts[i + 1]]`. The captions of picture p have the numbers `first[p]` to
    `first[p + 1] - 1`. A few flat arrays take far less memory than a list of lists.
    """

    ids: Tensor  # int32, with `<start>` and `<end>`
    starts: Tensor  # int64, (N + 1,)
    picture: Tensor  # int32, (N,)
    first: Tensor  # int64, (P + 1,)

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]], vocabulary: Vocabulary) -> CaptionTokens:
        """Tokenise captions; `texts[p]` are those of picture p."""
        ids, starts, picture, first = array("i"), array("q", [0]), array("i"), array("q", [0])
        for index, captions in enumerate(texts):
            for text in captions:
                ids.extend((START, *vocabulary.encode(text), END))
                starts.append(len(ids))
                picture.append(index)
            first.append(len(picture))
        types = {"i": torch.int32, "q": torch.int64}
        # The tensors share the memory of the arrays.
        return cls(*(torch.frombuffer(a, dtype=types[a.typecode]) for a in (ids, starts, picture, first)))

    def __len__(self) -> int:
        return len(self.picture)

    def lengths(self) -> Tensor:
        """The number of tokens of each caption, with `<start>` and `<end>`: (N,) int64."""
        return self.starts.diff()

    def targets(self, rows: Tensor) -> int:
        """How many tokens of the captions `rows`, (B,), are to be predicted: all but `<start>`."""
        return int(self.starts[rows + 1].sum() - self.starts[rows].sum()) - len(rows)

    def batch(self, rows: Tensor) -> Tensor:
        """The captions `rows`, (B,), padded to the longest of them: (B, T) int64."""
        starts, ends = self.starts[rows, None], self.starts[rows + 1, None]
        places = starts + torch.arange(int((ends - starts).max()))  # (B, T)
        return torch.where(places < ends, self.ids[places.clamp(max=len(self.ids) - 1)].long(), PAD)

    def with_owners(self, number: int) -> tuple[Tensor, Tensor]:
        """The tokens of all captions of the first `number` pictures, (n,) int64, and of which picture each is, (n,)."""
        ends = self.starts[self.first[: number + 1]]
        return self.ids[: ends[-1]].long(), torch.arange(number).repeat_interleave(ends.diff())

    def of_pictures(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """All captions of `pictures`, (P,): their numbers, and for each the position of its picture in `pictures`."""
        rows = [torch.arange(*self.first[picture : picture + 2].tolist()) for picture in pictures]
        return torch.cat(rows), torch.arange(len(rows)).repeat_interleave(torch.tensor([len(own) for own in rows]))


def sentences_of(tokens: Tensor) -> Tensor:
    """Captions (B, T) as the matcher reads them: without `<start>` and `<end>`, (B, T - 1).

    One without a word is one unknown word.
    """
    words = tokens[:, 1:].masked_fill(tokens[:, 1:] == END, PAD)
    words[:, 0] = words[:, 0].masked_fill(words[:, 0] == PAD, UNK)
    return words


def batches_by_length(lengths: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Captions in random order, in batches of similar length, so that little of a batch is padding.

    The captions are shuffled, sorted by length within every 160 batches, and cut; then the batches are shuffled.
    """
    order = torch.randperm(len(lengths), generator=generator)
    stretches = order.split(160 * batch_size)
    batches = [b for s in stretches for b in s[lengths[s].argsort(stable=True)].split(batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def mirror_table(vocabulary: Vocabulary) -> Tensor:
    """What each token becomes when the picture is mirrored, (V,) int64: left and right are exchanged."""
    table = torch.arange(len(vocabulary))
    for here, there in (("left", "right"), ("左", "右")):
        if here in vocabulary.words and there in vocabulary.words:
            a, b = vocabulary.words.index(here), vocabulary.words.index(there)
            table[a], table[b] = b, a
    return table
