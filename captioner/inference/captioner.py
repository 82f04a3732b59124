"""Captioner: load once, encode once, decode many times; one picture or a folder of any size."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captioner.errors import CheckpointError, DeviceError, ImageError, OptionError
from captioner.inference.decoding import ROWS, Hypothesis, decode, decode_state, prompt_ids
from captioner.inference.explanation import CANDIDATES, BeamRecorder, Candidate, Step, choices, heat_maps
from captioner.inference.openvino_engine import OpenVinoEncoder
from captioner.inference.parallel import in_batches, in_order, prefetched, readers
from captioner.inference.results import Caption, Explanation, FileResult
from captioner.machine import available_cpus, keep_freed_memory
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.encoder import computing_type, fuse_for_inference, in_bfloat16
from captioner.network.header import find_checkpoint
from captioner.network.preprocess import Preprocess
from captioner.options import ENGINES, DecodeOptions
from captioner.pictures.load import ImageSource, load_image
from captioner.vocab import END, join_tokens

T = TypeVar("T")
R = TypeVar("R")
Named: TypeAlias = "tuple[str, ImageSource | ImageError]"  # a picture's name, and where it is
BATCH_SIZE = 32


def load(
    path: str | os.PathLike[str] | None = None, device: str = "auto", precision: str = "auto", engine: str = "torch"
) -> Captioner:
    """Load a checkpoint: a file, or a shipped one by its short name; by default `flickr8k`.

    `device` is a torch device, or "auto": a GPU where torch sees one, the CPU otherwise. On the CPU the process
    keeps memory that it frees from now on (see `allocator`), which is much faster, and torch uses no more threads
    than the container's quota allows.
    `precision` is "float32", "bfloat16", or "auto": bfloat16 where the processor computes in it. It is faster
    and scores the same, but words some captions differently; float32 is the exact path.
    `engine` "openvino" runs, on the CPU, the encoder that `captioner export` wrote beside the checkpoint.
    Raises CheckpointError when the file is missing or damaged, DeviceError when there is no such device, OptionError
    for another precision or engine, DeviceError when there is no such encoder or the engine is not installed.
    """
    if engine not in ENGINES:
        raise OptionError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and engine == "torch" else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        raise DeviceError(f"no device {device!r} here: give cpu, or leave it out ({_first_line(error)})") from error
    if device == "cpu":
        keep_freed_memory()
        if available_cpus() < torch.get_num_threads():
            torch.set_num_threads(available_cpus())
    found = find_checkpoint(path)
    return Captioner(load_checkpoint(found), device, precision, found if engine == "openvino" else None)


class Captioner:
    """A checkpoint, ready to write captions. Make one with `captioner.load()`; it may be shared by threads.

    Where a `prompt` is taken, every caption begins with its words and goes on from there; `max_length` counts them.
    Raises OptionError for words that the model does not know, OptionError when no room is left for another.
    The encoder that was `exported` beside a checkpoint's file takes the place of its own; see `openvino_engine`.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str = "cpu", precision: str = "float32", exported: Path | None = None
    ) -> None:
        self.vocabulary = checkpoint.vocabulary
        self.provenance = checkpoint.provenance
        self.feature_size = checkpoint.model.encoder.feature_size
        # Words between which nobody says the same thing twice.
        self._conjunctions = [token for token, word in enumerate(self.vocabulary.words) if word in ("and", "or")]
        self.preprocess = checkpoint.preprocess
        self.config = checkpoint.model.config
        self._device = torch.device(device)
        self._threads = min(available_cpus(), torch.get_num_threads())
        self._dtype = computing_type(precision, self._device.type)
        self.precision = str(self._dtype).removeprefix("torch.")  # "float32" or "bfloat16"
        self._encoder = fuse_for_inference(checkpoint.model.encoder)
        self._decoder = checkpoint.model.decoder.eval()
        if self._dtype == torch.bfloat16:
            self._encoder, self._decoder = in_bfloat16(self._encoder), in_bfloat16(self._decoder)
        self._encoder.to(self._device)
        self._decoder.to(self._device)
        if exported and self._device.type != "cpu":
            raise DeviceError(f"openvino computes on the CPU, not on {device!r}: leave --device out")
        self._exported = OpenVinoEncoder(exported, self._threads, self.precision) if exported else None

    def caption(self, image: ImageSource, options: DecodeOptions | None = None, *, prompt: str = "") -> Caption:
        """Caption one picture: a path, the bytes of a file, a PIL image or an array (see `images.load_image`).

        Raises ImageError when it cannot be read.
        """
        options = options or DecodeOptions()
        ids = prompt_ids(self.vocabulary, prompt, options)
        # Not as a batch: threads that read ahead would take as long as the reading.
        feature = self.encode_pixels(Preprocess.batch([self._pixels(image)]))
        return self._write(feature, options, ids)[0]

    def caption_batch(
        self, images: Iterable[ImageSource], options: DecodeOptions | None = None, *, prompt: str = ""
    ) -> list[Caption]:
        """Caption several pictures, one Caption each. Raises ImageError for the first that cannot be read."""
        options = options or DecodeOptions()
        ids = prompt_ids(self.vocabulary, prompt, options)  # first: it may be wrong, and encoding takes long
        return self._write(self.encode(images), options, ids)

    def encode(self, images: Iterable[ImageSource]) -> Tensor:
        """Pictures to features (N, F), float32. Raises ImageError for the first that cannot be read."""
        batches = [torch.empty(0, self.feature_size, device=self._device)]
        with ThreadPoolExecutor(readers()) as pool:
            for batch in prefetched(pool, self._pixels, in_batches(images, BATCH_SIZE)):
                batches.append(self.encode_pixels(Preprocess.batch([future.result() for _, future in batch])))
        return torch.cat(batches)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 as `Preprocess.pixels` makes them -> features (B, F), float32."""
        features: Tensor
        if self._exported:
            features = self._exported(pixels)
        else:
            features = self._encoder(self.preprocess.normalise(pixels.to(self._device)).to(self._dtype))
        if not torch.isfinite(features).all():
            raise CheckpointError("the checkpoint's encoder computes what is not a number: its weights are damaged")
        return features.float()

    def caption_features(
        self, features: Tensor, options: DecodeOptions | None = None, *, prompt: str = ""
    ) -> list[Caption]:
        """Features (N, F) from `encode` to captions, one a row: encode once, decode as often as you like."""
        if features.ndim != 2 or features.shape[1] != self.feature_size:
            raise ValueError(f"features must have shape (N, {self.feature_size}), not {tuple(features.shape)}")
        options = options or DecodeOptions()
        return self._write(features, options, prompt_ids(self.vocabulary, prompt, options))

    def prepare(self, image: ImageSource) -> npt.NDArray[np.uint8]:
        """The picture as the encoder sees it: (S, S, 3) uint8, RGB, 0 to 255.

        Given instead of the picture it makes the same captions, in 150 KB: all that has to be kept of an upload.
        Raises ImageError when it cannot be read.
        """
        return np.ascontiguousarray(self._pixels(image).permute(1, 2, 0).numpy())

    def explain(self, image: ImageSource, options: DecodeOptions | None = None) -> Explanation:
        """Caption one picture and show how that came about: words weighed, hidden states, heat maps, the beam.

        Encodes the picture fifty times, with another part hidden each time.
        Raises ImageError when it cannot be read.
        """
        options = options or DecodeOptions()
        pixels = self._pixels(image)

        def encode(pixels: Tensor) -> Tensor:
            return self.encode_pixels(pixels).to(self._dtype)

        feature = encode(pixels[None])
        recorder = BeamRecorder(self.vocabulary.words, options.length_penalty)
        [[best, *_]] = decode(self._decoder, feature, options, (), self._conjunctions, recorder)
        read = choices(self._decoder, feature, best.tokens)
        heat = heat_maps(encode, self._decoder, pixels, best.tokens)
        top = read.logprobs.exp().topk(min(CANDIDATES, len(self.vocabulary)))
        words = self.vocabulary.words
        steps = tuple(
            Step(
                word=words[token],
                probability=math.exp(best.token_logprobs[t]),
                candidates=tuple(
                    Candidate(words[other], probability)
                    for other, probability in zip(top.indices[t].tolist(), top.values[t].tolist(), strict=True)
                ),
                hidden=read.hidden[t].float().cpu(),
                heat=heat[t].cpu(),
            )
            for t, token in enumerate(best.tokens)
        )
        return Explanation(self._caption(best), steps, tuple(recorder.steps))

    def sample(self, options: DecodeOptions | None = None, *, prompt: str = "") -> list[Caption]:
        """Sentences of the language model alone, which has seen no picture: `options.num_captions`, the best first.

        Without options one is drawn, as with the strategy `sample`.
        """
        options = options or DecodeOptions("sample")
        ids = prompt_ids(self.vocabulary, prompt, options)
        [hypotheses] = decode_state(self._decoder, self._decoder.zero_state(1), options, ids, self._conjunctions)
        return [self._caption(hypothesis) for hypothesis in hypotheses]

    def score(self, image: ImageSource, sentence: str) -> Caption:
        """How likely the model finds a given sentence for a picture, word by word.

        Words outside the vocabulary stand as `<unk>` in `tokens`, with that token's probability.
        Raises ImageError when the picture cannot be read.
        """
        return self.score_features(self.encode([image]), sentence)[0]

    def score_features(self, features: Tensor, sentence: str) -> list[Caption]:
        """The same for features (N, F) from `encode`, one Caption a row."""
        ids = [*self.vocabulary.encode(sentence), END]
        scored = []
        for feature in features.to(self._device, self._dtype).split(1):
            logprobs = choices(self._decoder, feature, ids).logprobs
            chosen = logprobs[torch.arange(len(ids)), ids].tolist()
            scored.append(replace(self._caption(Hypothesis(tuple(ids), tuple(chosen))), text=sentence))
        return scored

    def caption_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        options: DecodeOptions | None = None,
        batch_size: int = BATCH_SIZE,
        *,
        prompt: str = "",
    ) -> Iterator[FileResult]:
        """Caption a folder of any size, as a stream: one FileResult a path, in order.

        A picture that cannot be read gives a result with an `error` and does not stop the others. Pictures are
        read in the background, a few batches ahead; memory does not grow with their number.
        Raises ValueError for a `batch_size` below 1.
        """
        return self.caption_named(((os.fspath(path), path) for path in paths), options, batch_size, prompt=prompt)

    def caption_named(
        self,
        pictures: Iterable[Named],
        options: DecodeOptions | None = None,
        batch_size: int = BATCH_SIZE,
        *,
        prompt: str = "",
    ) -> Iterator[FileResult]:
        """The same for pictures from anywhere: (name, source), where the name stands for the path of the result.

        In place of a source may stand the ImageError that says why there is none.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        options = options or DecodeOptions()
        return self._stream(pictures, options, batch_size, prompt_ids(self.vocabulary, prompt, options))

    def _stream(
        self, pictures: Iterable[Named], options: DecodeOptions, batch_size: int, prompt: list[int]
    ) -> Iterator[FileResult]:
        # Each worker takes whole batches from file to caption, on one thread of torch's: then no processor waits for
        # another, as they do after every layer when they share a batch, and reading costs the network nothing.
        batches = in_batches(pictures, batch_size)
        with ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            work = partial(self._caption_batch, options=options, prompt=prompt)
            try:
                yield from chain.from_iterable(in_order(pool, work, batches, self._threads + 1))
            finally:  # torch would give new threads of the process what ours asked for
                torch.set_num_threads(self._threads)

    def _caption_batch(self, pictures: list[Named], options: DecodeOptions, prompt: list[int]) -> list[FileResult]:
        """One batch of `caption_named`."""
        read: list[Tensor | ImageError] = []
        for name, source in pictures:
            try:
                read.append(source if isinstance(source, ImageError) else self._pixels(source, name))
            except ImageError as error:
                read.append(error)
        pixels = [picture for picture in read if isinstance(picture, Tensor)]
        features = self.encode_pixels(Preprocess.batch(pixels)) if pixels else self.encode([])
        captions = iter(self._write(features, options, prompt))
        return [
            FileResult(name, None, str(picture))
            if isinstance(picture, ImageError)
            else FileResult(name, next(captions))
            for (name, _), picture in zip(pictures, read, strict=True)
        ]

    def _write(self, features: Tensor, options: DecodeOptions, prompt: list[int]) -> list[Caption]:
        """Features (N, F) to captions, one a row, each with its alternatives."""
        captions = []
        for part in features.to(self._device, self._dtype).split(_rows_at_once(options)):
            for hypotheses in decode(self._decoder, part, options, prompt, self._conjunctions):
                best, *others = (self._caption(hypothesis) for hypothesis in hypotheses)
                captions.append(replace(best, alternatives=tuple(others)))
        return captions

    def _pixels(self, image: ImageSource, name: str = "the picture") -> Tensor:
        # Twice the size that is wanted is enough for the last shrinking to be a good one.
        return self.preprocess.pixels(load_image(image, smallest=2 * self.preprocess.size, name=name))

    def _caption(self, hypothesis: Hypothesis) -> Caption:
        words = [self.vocabulary.words[token] for token in hypothesis.tokens if token != END]
        probabilities = [math.exp(logprob) for logprob in hypothesis.token_logprobs]
        return Caption(
            text=join_tokens(words, self.vocabulary.tokens),
            tokens=tuple(words),
            probabilities=tuple(probabilities[: len(words)]),
            end_probability=probabilities[-1] if hypothesis.finished else None,
            logprob=hypothesis.logprob,
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def _rows_at_once(options: DecodeOptions) -> int:
    """Pictures decoded together: one at least, and as many as keep the table of next words at ROWS."""
    rows = options.beam_size if options.strategy == "beam" else options.num_captions
    return max(1, ROWS // rows)
