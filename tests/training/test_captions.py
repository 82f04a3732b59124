"""Captions in flat arrays and the batches cut from them."""

from __future__ import annotations

import tracemalloc

import pytest
import torch

from captioner.training.captions import CaptionTokens, batches_by_length, mirror_table
from captioner.vocab import END, PAD, START, UNK, Vocabulary


def test_captions_are_flat_arrays_with_start_and_end() -> None:
    vocabulary = Vocabulary.build(["a dog runs"])
    a, dog, runs = vocabulary.encode("a dog runs")
    captions = CaptionTokens.of([("A dog .", "a dog runs"), (), ("cat dog",)], vocabulary)
    assert captions.picture.tolist() == [0, 0, 2]
    assert captions.lengths().tolist() == [4, 5, 4]
    batch = captions.batch(torch.tensor([2, 1]))
    assert batch.tolist() == [[START, UNK, dog, END, PAD], [START, a, dog, runs, END]]
    assert captions.batch(torch.tensor([0])).tolist() == [[START, a, dog, END]]


def test_the_captions_of_pictures_are_found_in_their_order() -> None:
    vocabulary = Vocabulary.build(["a"])
    captions = CaptionTokens.of([("a",) * count for count in (2, 0, 3, 1)], vocabulary)
    rows, owner = captions.of_pictures(torch.tensor([3, 1, 2]))
    assert rows.tolist() == [5, 2, 3, 4]
    assert owner.tolist() == [0, 2, 2, 2]


@pytest.mark.slow
def test_a_caption_takes_less_than_a_hundred_bytes() -> None:
    """Its text may be forgotten then."""
    vocabulary = Vocabulary.build([f"w{index}" for index in range(1000)])
    pictures = 4000

    def texts() -> list[str]:
        for picture in range(pictures):
            yield [" ".join(f"w{(13 * picture + 7 * word + copy) % 1000}" for word in range(12)) for copy in range(5)]

    tracemalloc.start()
    captions = CaptionTokens.of(texts(), vocabulary)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(captions) == 5 * pictures
    assert taken / len(captions) < 100


def test_batches_hold_every_caption_once_and_little_padding() -> None:
    lengths = torch.randint(5, 25, (3000,), generator=torch.Generator().manual_seed(1))
    batches = batches_by_length(lengths, 64, torch.Generator().manual_seed(2))
    assert sorted(torch.cat(batches).tolist()) == list(range(3000))
    computed = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert computed / int(lengths.sum()) < 1.05
    again = batches_by_length(lengths, 64, torch.Generator().manual_seed(2))
    other = batches_by_length(lengths, 64, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    assert not all(len(a) == len(b) and torch.equal(a, b) for a, b in zip(batches, other, strict=True))


def test_a_mirrored_picture_swaps_left_and_right() -> None:
    vocabulary = Vocabulary.build(["dog on the left man on the right"])
    table = mirror_table(vocabulary)
    swapped = table[torch.tensor(vocabulary.encode("dog on the left of the right man"))]
    assert vocabulary.decode(swapped.tolist()) == vocabulary.decode(
        vocabulary.encode("dog on the right of the left man")
    )
    alone = Vocabulary.build(["dog left"])
    assert torch.equal(mirror_table(alone), torch.arange(len(alone)))
    chinese = Vocabulary.build(["左右"], tokens="character")
    assert chinese.decode(mirror_table(chinese)[chinese.encode("左右左")].tolist()) == ["右", "左", "右"]
