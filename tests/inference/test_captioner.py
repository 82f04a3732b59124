"""Captioner: whichever way a picture comes in and however many come with it, it gets the same caption."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_ENCODER, TINY_WORDS, draw_picture, make_checkpoint
from PIL import Image

import captioner
from captioner import Caption, Captioner, DecodeOptions
from captioner.errors import CaptionerError, CheckpointError, DeviceError, ImageError, InputError, OptionError
from captioner.inference.results import FileResult
from captioner.inference.rules import Rules
from captioner.inference.torch_engine import captioner_of
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.header import find_checkpoint
from captioner.vocab import PAD, START, UNK
from inference.decoders import decode

GREEDY = DecodeOptions("greedy")
WAYS = [
    pytest.param(options, id=options.strategy)
    for options in (GREEDY, DecodeOptions("sample", num_captions=3, seed=1), DecodeOptions(num_captions=3))
]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Checkpoint) -> Captioner:
    return captioner_of(tiny_checkpoint)


@pytest.fixture(scope="module")
def brief_model() -> Captioner:
    """The same model in more haste to end."""
    return captioner_of(make_checkpoint(end=2.0))


def same(one: Caption, other: Caption) -> bool:
    """Equal up to rounding: a batch is summed in another order than one picture."""
    return (
        one.tokens == other.tokens
        and math.isclose(one.logprob, other.logprob, abs_tol=1e-3)
        and len(one.alternatives) == len(other.alternatives)
        and all(map(same, one.alternatives, other.alternatives))
    )


CONVERT: dict[str, Callable[[Path], Any]] = {
    "path": Path,
    "text": str,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "file": lambda path: path.open("rb"),
    "file in memory": lambda path: io.BytesIO(path.read_bytes()),
    "picture": Image.open,
    "array": lambda path: np.asarray(Image.open(path)),
    "tensor": lambda path: torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1),
    "tensor of floats": lambda path: torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255,
}


@pytest.mark.parametrize("kind", CONVERT)
def test_every_kind_of_source_gives_the_same_caption(model: Captioner, pictures: list[Path], kind: str) -> None:
    for path in pictures[:3]:
        assert model.caption(CONVERT[kind](path)) == model.caption(path)
        assert model.caption_batch(CONVERT[kind](path)) == [model.caption(path)]  # alone, it is a list of one


def test_a_list_may_mix_sources_and_a_path_alone_means_its_pictures(model: Captioner, pictures: list[Path]) -> None:
    captions = model.caption_batch(pictures)
    mixed = [convert(path) for convert, path in zip(CONVERT.values(), pictures, strict=False)]
    assert model.caption_batch(mixed) == captions
    results = list(model.caption_files([pictures[0], *[convert(pictures[1]) for convert in CONVERT.values()]]))
    names = [str(pictures[0]), str(pictures[1]), str(pictures[1]), "picture 4", "picture 5"]
    assert [result.path for result in results[:5]] == names
    assert all(result.caption and result.caption.text == captions[1].text for result in results[1:])
    stacked = torch.stack([CONVERT["tensor"](path) for path in pictures])
    assert model.caption_batch(stacked) == captions
    folder = pictures[0].parent
    for given in (folder, str(folder), f"{folder}/*.jpg"):
        assert [result.path for result in model.caption_files(given)] == [str(path) for path in pictures]
        assert model.caption_batch(given) == captions
    with pytest.raises(InputError, match="no pictures in this folder"):
        model.caption_files(folder.parent)


def test_pictures_get_captions_of_their_own(model: Captioner, pictures: list[Path]) -> None:
    """Without this, most of the other tests would show nothing."""
    captions = model.caption_batch(pictures)
    assert len({caption.text for caption in captions}) >= 3
    assert len({round(caption.logprob, 2) for caption in captions}) == len(pictures)


@pytest.mark.parametrize("options", WAYS)
def test_a_batch_keeps_the_order_and_equals_single_pictures(
    model: Captioner, pictures: list[Path], options: DecodeOptions
) -> None:
    batch = model.caption_batch(pictures, options)
    assert all(map(same, batch, [model.caption(path, options) for path in pictures]))
    assert all(map(same, batch[::-1], model.caption_batch(pictures[::-1], options)))


def test_more_pictures_than_a_batch_keep_their_order(model: Captioner) -> None:
    images = [draw_picture(index) for index in range(40)]
    singly = [model.encode([image])[0] for image in images]
    assert np.allclose(model.encode(iter(images)), np.stack(singly), atol=1e-5)


@pytest.mark.parametrize("options", WAYS)
def test_encoding_once_and_decoding_often_equals_captioning(
    model: Captioner, pictures: list[Path], options: DecodeOptions
) -> None:
    features = model.encode(pictures)
    assert features.shape == (7, model.feature_size)
    assert features.dtype == np.float32
    assert model.caption_features(features, options) == model.caption_batch(pictures, options)
    assert model.caption_features(features, options) == model.caption_features(features, options)


@pytest.mark.parametrize("number", [1000, 2500])
def test_features_decoded_in_parts_are_those_decoded_at_once(
    model: Captioner, pictures: list[Path], number: int
) -> None:
    """As many draws as these go through the decoder two pictures, or one, at a time."""
    options = DecodeOptions("sample", num_captions=number, max_length=4)
    features = model.encode(pictures[:3])
    with torch.inference_mode():
        at_once = decode(model.network.decoder, torch.from_numpy(features), Rules(options))
    for caption, draws in zip(model.caption_features(features, options), at_once, strict=True):
        assert 1 + len(caption.alternatives) == len(draws) == number
        assert caption.logprob == pytest.approx(draws[0].logprob, abs=1e-3)


def test_features_of_another_shape_are_refused(model: Captioner) -> None:
    for shape in ((3, model.feature_size + 1), (model.feature_size,)):
        with pytest.raises(ValueError, match=rf"features must have shape \(N, {model.feature_size}\), not"):
            model.caption_features(np.zeros(shape))
    assert model.caption_features(torch.zeros(1, model.feature_size))  # other arrays will do


def test_no_pictures_give_no_captions(model: Captioner) -> None:
    assert model.encode([]).shape == (0, model.feature_size)
    assert model.caption_batch([]) == []
    assert list(model.caption_files([])) == []


def test_a_batch_names_the_first_picture_that_cannot_be_read(model: Captioner, pictures: list[Path]) -> None:
    pictures[3].write_bytes(b"")
    with pytest.raises(ImageError, match=r"picture3\.jpg: the file is empty"):
        model.caption_batch([*pictures, "missing.jpg"])


# What a caption says


@pytest.mark.parametrize("options", WAYS)
def test_a_caption_is_readable_and_its_tokens_are_raw(
    model: Captioner, pictures: list[Path], options: DecodeOptions
) -> None:
    for best in model.caption_batch(pictures, replace(options, min_length=1)):
        for caption in (best, *best.alternatives):
            assert set(caption.tokens) <= set(TINY_WORDS)
            assert caption.text == str(caption) == " ".join(caption.tokens).capitalize()


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("max_length", [3, 20])
def test_probabilities_multiply_to_the_logprob(
    model: Captioner, brief_model: Captioner, pictures: list[Path], options: DecodeOptions, max_length: int
) -> None:
    finished, options = set(), replace(options, max_length=max_length)
    for caption in (*model.caption_batch(pictures, options), *brief_model.caption_batch(pictures, options)):
        assert len(caption.probabilities) == len(caption.tokens)
        assert caption.finished == (caption.end_probability is not None)
        assert caption.finished or len(caption.tokens) == max_length
        product = math.prod(caption.probabilities) * (caption.end_probability if caption.finished else 1.0)
        assert product == pytest.approx(math.exp(caption.logprob), rel=1e-6)
        finished.add(caption.finished)
    assert True in finished
    assert max_length == 20 or False in finished


@pytest.mark.parametrize("options", WAYS)
def test_the_score_of_its_own_caption_is_its_logprob(
    model: Captioner, pictures: list[Path], options: DecodeOptions
) -> None:
    compared = 0
    for path in pictures:
        caption = model.caption(path, options)
        score = model.score(path, caption.text)
        assert score.finished  # a sentence that was given is always scored to its end
        assert score.text == caption.text
        assert score.tokens == caption.tokens
        assert score.probabilities == pytest.approx(caption.probabilities, rel=1e-4)
        if caption.finished:
            assert score.logprob == pytest.approx(caption.logprob, abs=1e-4)
            compared += 1
    assert compared


def test_greedy_words_are_the_likeliest_and_others_score_less(model: Captioner, pictures: list[Path]) -> None:
    caption = model.caption(pictures[0], DecodeOptions("greedy", min_length=2))
    for word in TINY_WORDS:
        other = model.score(pictures[0], word)
        assert other.probabilities[0] <= caption.probabilities[0] + 1e-6


def test_unknown_words_and_no_words_can_be_scored(model: Captioner, pictures: list[Path]) -> None:
    score = model.score(pictures[0], "A zebra runs!")
    assert score.text == "A zebra runs!"
    assert score.tokens == ("a", "<unk>", "runs")
    assert math.prod(score.probabilities) * (score.end_probability or 0.0) == pytest.approx(math.exp(score.logprob))
    assert model.score(pictures[0], "").tokens == ()


@pytest.mark.parametrize(
    "options", [DecodeOptions("sample", num_captions=9), DecodeOptions(beam_size=9, num_captions=9, length_penalty=1.0)]
)
def test_alternatives_come_best_first(model: Captioner, pictures: list[Path], options: DecodeOptions) -> None:
    for best in model.caption_batch(pictures, options):
        captions = [best, *best.alternatives]
        assert len(captions) == 9
        assert not any(caption.alternatives for caption in best.alternatives)
        finished = [caption.finished for caption in captions]
        if options.strategy == "beam":
            assert finished == sorted(finished, reverse=True)
            captions = [caption for caption in captions if caption.finished]
        # This beam ranks by log-probability a token, `<end>` included; draws by log-probability.
        scores = [c.logprob / (len(c.tokens) + 1 if options.strategy == "beam" else 1) for c in captions]
        assert scores == sorted(scores, reverse=True)


def test_one_caption_has_no_alternatives(model: Captioner, pictures: list[Path]) -> None:
    assert model.caption(pictures[0]).alternatives == ()


def test_without_options_a_caption_is_made_with_the_defaults(model: Captioner, pictures: list[Path]) -> None:
    assert model.caption_batch(pictures) == model.caption_batch(pictures, DecodeOptions())


# Captions that begin as they are told, and sentences without a picture


@pytest.mark.parametrize("options", WAYS)
def test_captions_begin_with_the_prompt_whichever_way_they_are_asked_for(
    model: Captioner, pictures: list[Path], options: DecodeOptions
) -> None:
    prompt = "The red, BLUE"
    captions = model.caption_batch(pictures, options, prompt=prompt)
    for best in captions:
        for caption in (best, *best.alternatives):
            assert caption.tokens[:3] == ("the", "red", "blue")
            assert caption.text == " ".join(caption.tokens).capitalize()
    assert len({caption.logprob for caption in captions}) > 1
    assert model.caption_features(model.encode(pictures), options, prompt=prompt) == captions
    assert same(model.caption(pictures[0], options, prompt=prompt), captions[0])
    streamed = [result.caption for result in model.caption_files(pictures, options, prompt=prompt)]
    assert all(map(same, filter(None, streamed), captions))
    # An empty one is none.
    assert model.caption_batch(pictures, options, prompt="") == model.caption_batch(pictures, options) != captions


def test_a_prompt_counts_in_the_probability_as_in_a_score(model: Captioner, pictures: list[Path]) -> None:
    caption = model.caption(pictures[0], prompt="snow snow")
    score = model.score(pictures[0], caption.text)
    assert score.tokens == caption.tokens
    assert score.probabilities == pytest.approx(caption.probabilities, rel=1e-4)
    assert math.prod(caption.probabilities) * (caption.end_probability or 1.0) == pytest.approx(
        math.exp(caption.logprob)
    )


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        (
            "a dag and a zebra",
            OptionError,
            r"every word of the prompt: not 'dag' \(did you mean 'dog'\?\), 'and'.*'zebra'",
        ),
        ("...", OptionError, r"the prompt '\.\.\.' holds no word: give some"),
        (" ", OptionError, "holds no word"),
        ("<unk>", OptionError, "not 'unk'"),
        ("a dog runs", OptionError, "the prompt is 3 words long .* at least 4"),
    ],
)
def test_a_prompt_that_cannot_be_gone_on_from_is_refused_before_any_work(
    model: Captioner, prompt: str, error: type[CaptionerError], message: str
) -> None:
    options, missing = DecodeOptions(max_length=3), ["missing.jpg"]
    for write in (
        lambda: model.caption(missing[0], options, prompt=prompt),
        lambda: model.caption_batch(missing, options, prompt=prompt),
        lambda: model.caption_files(missing, options, prompt=prompt),
        lambda: model.caption_features(torch.zeros(0, model.feature_size), options, prompt=prompt),
        lambda: model.sample(DecodeOptions("greedy", max_length=3), prompt=prompt),
    ):
        with pytest.raises(error, match=message):
            write()


def test_an_unknown_character_is_named() -> None:
    chinese = captioner_of(make_checkpoint(tokens="character"))
    with pytest.raises(OptionError, match=r"every character of the prompt: not '猫'$"):
        chinese.sample(prompt="一只猫")


def test_sentences_without_a_picture_are_drawn_by_the_seed(model: Captioner) -> None:
    options = DecodeOptions("sample", num_captions=6, seed=3)
    drawn = model.sample(options)
    assert len(drawn) == 6
    assert len({caption.text for caption in drawn}) > 3
    assert drawn == model.sample(options) != model.sample(replace(options, seed=4))
    assert [caption.logprob for caption in drawn] == sorted((caption.logprob for caption in drawn), reverse=True)
    assert not any(caption.alternatives for caption in drawn)
    assert model.sample() == model.sample(DecodeOptions("sample"))
    assert all(caption.tokens[:2] == ("a", "dog") for caption in model.sample(options, prompt="a dog"))
    assert len(model.sample(DecodeOptions(num_captions=3))) == 3


def test_sentences_without_a_picture_are_those_of_a_zero_state(model: Captioner) -> None:
    [caption] = model.sample(DecodeOptions("greedy"))
    ids, state, expected = [START], model.network.decoder.zero_state(1), []
    with torch.inference_mode():
        for _ in caption.tokens:
            logits, state = model.network.decoder.step(torch.tensor(ids[-1:]), state)
            logits[:, [PAD, START, UNK]] = -torch.inf
            ids.append(int(logits.argmax()))
            expected.append(model.vocabulary.words[ids[-1]])
    assert list(caption.tokens) == expected


# A folder of any size


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_a_stream_equals_a_batch_whatever_its_batch_size(
    model: Captioner, pictures: list[Path], options: DecodeOptions, batch_size: int
) -> None:
    results = list(model.caption_files(pictures, options, batch_size))
    assert [result.path for result in results] == [str(path) for path in pictures]
    assert all(result.error is None for result in results)
    captions = [result.caption for result in results if result.caption]
    assert all(map(same, captions, model.caption_batch(pictures, options)))
    assert len(captions) == len(pictures)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_a_picture_that_cannot_be_read_is_a_row_with_its_error(
    model: Captioner, pictures: list[Path], batch_size: int
) -> None:
    whole = model.caption_batch(pictures, GREEDY)
    pictures[2].write_bytes(b"no picture")
    pictures[3].unlink()
    pictures[6].write_bytes(pictures[6].read_bytes()[:400])
    results = list(model.caption_files([*map(str, pictures), pictures[0].parent], GREEDY, batch_size))
    assert [result.path for result in results] == [*map(str, pictures), str(pictures[0].parent)]
    for index, words in {2: "not a picture", 3: "no such file", 6: "damaged", 7: "is a folder"}.items():
        assert results[index].caption is None
        assert results[index].path in str(results[index].error)
        assert words in str(results[index].error)
    for index in (0, 1, 4, 5):
        assert results[index].error is None
        assert same(results[index].caption, whole[index])


def test_pictures_from_anywhere_go_by_the_names_that_they_are_given(model: Captioner, pictures: list[Path]) -> None:
    sources = [
        pictures[0],
        pictures[1].read_bytes(),
        ImageError("c: gone"),
        b"no picture",
        b"",
        Image.open(pictures[2]),
    ]
    results = list(model.caption_named(zip("abcdef", sources, strict=True), GREEDY, 4))
    assert [result.path for result in results] == list("abcdef")
    reasons = ["c: gone", "d: not a picture, or a format that Pillow cannot read", "e: the file is empty"]
    assert [result.error for result in results] == [None, None, *reasons, None]
    expected = iter(model.caption_batch(pictures[:3], GREEDY))
    assert all(same(result.caption, next(expected)) for result in results if result.caption)


def test_pictures_that_are_captioned_together_are_one_batch(model: Captioner, pictures: list[Path]) -> None:
    """As in a stream, errors stand in the places of their pictures. Without rules the defaults are used."""

    def said(results: Iterable[FileResult]) -> list[tuple[str, str | None, str | None]]:
        # A stream computes with one thread, so that the last bits of probabilities may differ.
        return [(result.path, result.caption and result.caption.text, result.error) for result in results]

    named = [("a", pictures[0]), ("b", b"no picture"), ("c", ImageError("gone")), ("d", pictures[1])]
    results = said(model.caption_together(named, model.rules(GREEDY, "a dog")))
    assert results == said(model.caption_named(named, GREEDY, 4, prompt="a dog"))
    assert [error is None for _, _, error in results] == [True, False, False, True]
    assert said(model.caption_together(named)) == said(model.caption_named(named))
    assert model.caption_together([("c", ImageError("gone"))])[0].error == "gone"
    assert model.caption_together([]) == []


def test_a_stream_does_not_read_far_ahead(model: Captioner, pictures: list[Path]) -> None:
    asked = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        while True:
            asked += 1
            yield pictures[asked % len(pictures)]

    stream = model.caption_files(endless(), GREEDY, batch_size=2)
    assert asked == 0
    for taken in range(1, 20):
        next(stream)
        # The batch being handed out, one in each worker, and one that waits for a worker.
        assert asked <= taken + (model.network.workers + 2) * 2
    stream.close()


# How a captioner is made


def test_a_stream_leaves_torchs_threads_as_they_were(model: Captioner, pictures: list[Path]) -> None:
    """Of this thread, and of those to come."""
    before = torch.get_num_threads()
    list(model.caption_files(pictures, GREEDY, 2))
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before


def test_a_stream_that_is_stopped_early_gives_torch_its_threads_back(
    tiny_checkpoint_file: Path, pictures: list[Path]
) -> None:
    model = captioner.load(tiny_checkpoint_file, precision="float32")
    before = torch.get_num_threads()
    stream = model.caption_files(pictures, batch_size=1)
    next(stream)
    stream.close()
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before


def test_load_reads_a_checkpoint_file(tiny_checkpoint_file: Path, pictures: list[Path]) -> None:
    loaded = captioner.load(tiny_checkpoint_file, device="cpu", precision="float32")
    assert loaded.caption_batch(pictures) == captioner_of(load_checkpoint(tiny_checkpoint_file)).caption_batch(pictures)


def test_sentences_with_unknown_words_rank_last(model: Captioner, pictures: list[Path]) -> None:
    own = model.caption(pictures[0]).text
    sentences = ["zebra xylophone zebra", "snow snow snow snow snow", "a zebra", own, ""]
    ranked = model.rank(pictures[0], sentences)
    known = sorted((model.score(pictures[0], text) for text in sentences[1::2]), key=lambda score: -score.logprob)
    assert [score.text for score in ranked if score.text][:2] == [score.text for score in known]
    assert [score.text for score in ranked][-2:] == ["a zebra", "zebra xylophone zebra"]
    assert [score.unknown for score in ranked][-2:] == [("zebra",), ("zebra", "xylophone")]
    assert {score.unknown for score in ranked[:3]} == {()}
    assert ranked[0].logprob == pytest.approx(max(score.logprob for score in ranked[:3]))


def test_another_precision_is_refused(tiny_checkpoint_file: Path) -> None:
    with pytest.raises(OptionError, match="precision must be one of auto, float32, bfloat16, not 'int8'"):
        captioner.load(tiny_checkpoint_file, precision="int8")


@pytest.mark.parametrize("device", ["abacus", "meta", "cuda:99", "mps", "xpu"])
def test_a_device_that_is_not_there_is_refused_in_one_line(tiny_checkpoint_file: Path, device: str) -> None:
    if (device == "mps" and torch.backends.mps.is_available()) or (device == "xpu" and torch.xpu.is_available()):
        pytest.skip("this machine has one")
    with pytest.raises(DeviceError, match=f"^no device '{device}' here: give cpu.{{0,90}}$"):
        captioner.load(tiny_checkpoint_file, device=device)


def test_threads_may_share_a_captioner(model: Captioner, pictures: list[Path]) -> None:
    alone = [model.caption(path) for path in pictures]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(model.caption, 8 * pictures)) == 8 * alone


def test_captioning_is_repeatable(model: Captioner, pictures: list[Path]) -> None:
    sample = DecodeOptions("sample", num_captions=2)
    assert model.caption_batch(pictures, sample) == model.caption_batch(pictures, sample)
    assert model.caption_batch(pictures, sample) != model.caption_batch(pictures, replace(sample, seed=1))


# The model that a captioner is made from, and the file


def test_it_says_what_it_is_and_which_file_it_came_from(tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(tiny_checkpoint_file.read_bytes())
    model, content = captioner.load(path, precision="float32"), path.read_bytes()
    assert model.path == path
    assert (model.config.encoder, model.config.cell, model.config.hidden_size) == (TINY_ENCODER, "lstm", 24)
    assert model.digest() == hashlib.sha256(content).hexdigest()
    path.unlink()
    assert model.digest() == hashlib.sha256(content).hexdigest()  # computed once
    assert captioner.load(precision="float32").path == find_checkpoint()


@pytest.mark.parametrize("change", ["rewritten", "replaced", "gone"])
def test_a_file_that_is_another_by_now_has_no_digest(tiny_checkpoint_file: Path, tmp_path: Path, change: str) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(tiny_checkpoint_file.read_bytes())
    model = captioner.load(path, precision="float32")
    if change != "rewritten":
        path.unlink()
    if change != "gone":
        path.write_bytes(tiny_checkpoint_file.read_bytes()[:-1] + b" ")
    with pytest.raises(CheckpointError, match=r"some\.safetensors: has changed since it was loaded"):
        model.digest()


def test_a_model_from_memory_has_no_file(model: Captioner) -> None:
    assert model.path is None
    with pytest.raises(CheckpointError, match="not loaded from a file"):
        model.digest()


def test_a_batch_holds_a_picture_at_least(model: Captioner) -> None:
    with pytest.raises(OptionError, match="batch_size must be at least 1, not 0"):
        model.caption_files([], batch_size=0)
