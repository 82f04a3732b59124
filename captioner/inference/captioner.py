"""`load` a checkpoint, and get a `Captioner`: load once, encode once, decode as often as you like."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captioner.errors import CheckpointError, DeviceError, OptionError
from captioner.files import sha256_of
from captioner.inference.decoding import ROWS, Hypothesis, decode, decode_state
from captioner.inference.devices import best_device, check_device
from captioner.inference.explanation import Explanation, explain, teacher_forced
from captioner.inference.openvino_engine import OpenVinoEncoder
from captioner.inference.parallel import in_batches, in_order
from captioner.inference.reader import Reader, load_reader
from captioner.inference.results import Caption, FileResult
from captioner.inference.rules import Rules
from captioner.inference.store import FeatureStore, Named, encode_together
from captioner.inference.trust import Judge
from captioner.machine import available_cpus, cpu_times, free_cpus, keep_freed_memory
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.encoder import Encoder, computing_type, fuse_for_inference, in_bfloat16
from captioner.network.header import find_checkpoint
from captioner.network.preprocess import Preprocess
from captioner.options import ENGINES, DecodeOptions
from captioner.pictures.find import find_pictures
from captioner.pictures.load import MAX_PIXELS, ImageSource, load_image
from captioner.vocab import END, UNK

Images: TypeAlias = "ImageSource | Iterable[ImageSource]"
BATCH_SIZE = 32


def load(
    path: str | os.PathLike[str] | None = None, device: str = "auto", precision: str = "auto", engine: str = "torch"
) -> Captioner:
    """Load a checkpoint: a file, or a shipped one by its short name; by default `flickr8k`.

    `device` is a torch device, or "auto": CUDA where torch sees it, then Apple's MPS, then the CPU. On the CPU the
    whole process keeps the memory that it frees from now on, which is much faster (see `machine.keep_freed_memory`),
    and torch uses no more threads than there are processors that other programs leave free.
    `precision` is "float32", which is exact, "bfloat16", which is faster and scores the same but words some captions
    differently, or "auto": bfloat16 where the processor computes in it.
    `engine` "openvino" runs, on the CPU, the encoder that `captioner export` wrote beside the checkpoint.
    Raises CheckpointError when the file is missing or damaged, OptionError for an unknown precision or engine, and
    DeviceError when there is no such device, the engine is not installed, or its encoder is missing or damaged.
    """
    if engine not in ENGINES:
        raise OptionError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if device == "auto":
        device = best_device() if engine == "torch" else "cpu"
    check_device(device)
    before = cpu_times()
    if device == "cpu":
        keep_freed_memory()
    found = find_checkpoint(path)
    state = _state(found)
    checkpoint = load_checkpoint(found)
    exported = found if engine == "openvino" else None
    encoder = PictureEncoder(checkpoint.model.encoder, checkpoint.preprocess, device, precision, exported)
    if device == "cpu":
        free = free_cpus(before) if before else available_cpus()  # loading took long enough to tell
        torch.set_num_threads(min(torch.get_num_threads(), free))
    captioner = Captioner(checkpoint, encoder)
    captioner.path, captioner._state = found, state
    return captioner


class PictureEncoder:
    """From pictures to features, on one device and in one precision. Threads may share it.

    It computes with a copy of `encoder` that was made fast, and leaves the encoder itself as it is. With `exported`, a
    checkpoint's file, it runs the encoder that was exported beside that instead (see `openvino_engine`).
    Raises OptionError for an unknown precision, DeviceError when the exported encoder cannot run.
    """

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Preprocess,
        device: str = "cpu",
        precision: str = "float32",
        exported: Path | None = None,
    ) -> None:
        self.preprocess, self.feature_size = preprocess, encoder.feature_size
        self.device = torch.device(device)
        self.dtype = computing_type(precision, self.device.type)
        self.precision = str(self.dtype).removeprefix("torch.")  # "float32" or "bfloat16"
        self.engine = "openvino" if exported else "torch"
        self.workers = _most_threads()
        if exported and self.device.type != "cpu":
            raise DeviceError(f"openvino computes on the CPU, not on {device!r}: leave --device out")
        self._exported = OpenVinoEncoder(exported, self.workers, self.precision) if exported else None
        if not exported:
            network = fuse_for_inference(encoder)
            self.network = (in_bfloat16(network) if self.dtype == torch.bfloat16 else network).to(self.device)

    def pixels(self, image: ImageSource, name: str = "the picture", max_pixels: int = MAX_PIXELS) -> Tensor:
        """One picture as the encoder reads it, (3, S, S) uint8. Raises ImageError, in which it is called `name`."""
        # Reduced to twice the side while it is read, a picture still looks the same after the last reduction.
        smallest = 2 * self.preprocess.size
        return self.preprocess.pixels(load_image(image, max_pixels=max_pixels, smallest=smallest, name=name))

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), uint8, to features (B, F), float32. Raises CheckpointError if they are not finite."""
        if self._exported:
            features = self._exported(pixels)
        else:
            features = self.network(self.preprocess.normalise(pixels.to(self.device)).to(self.dtype))
        if not torch.isfinite(features).all():
            raise CheckpointError("the checkpoint's encoder computes what is not a number: its weights are damaged")
        return features.float()

    def encode(self, images: Images) -> Tensor:
        """Pictures to features (N, F), float32. Raises ImageError for the first that cannot be read."""
        with ThreadPoolExecutor(available_cpus()) as pool:
            batches = in_batches(in_order(pool, self.pixels, _each(images), 3 * BATCH_SIZE), BATCH_SIZE)
            features = [self.encode_pixels(Preprocess.batch(batch)) for batch in batches]
        return torch.cat([torch.empty(0, self.feature_size, device=self.device), *features])


class Captioner:
    """A checkpoint, ready to write captions. Make one with `captioner.load()`.

    Threads may share it: any number of them may call its methods at once, and each gets what it would get alone.
    Pictures are paths, the bytes of files, open files, PIL images, arrays or tensors (see `pictures.load.load_image`).
    Methods that take several take a list of any of these, or the path of a folder, which stands for its pictures.
    Methods that take a `prompt` begin every caption with its words; `max_length` includes them. They raise OptionError
    for words that the model does not know, and for a prompt that leaves no room for another word.
    Without an `encoder` it makes one that computes in float32 on the CPU. It uses a copy of the checkpoint's decoder,
    so a model that is being trained stays as it is.
    """

    def __init__(self, checkpoint: Checkpoint, encoder: PictureEncoder | None = None) -> None:
        self.encoder = encoder or PictureEncoder(checkpoint.model.encoder, checkpoint.preprocess)
        self.config = checkpoint.model.config
        self.vocabulary = checkpoint.vocabulary
        self.provenance = checkpoint.provenance
        self.preprocess, self.feature_size = self.encoder.preprocess, self.encoder.feature_size
        self.precision, self.engine = self.encoder.precision, self.encoder.engine
        self.path: Path | None = None  # the file that it was loaded from
        self._state: tuple[int, ...] = ()  # of that file when it was loaded
        self._digest = ""
        self._threads = torch.get_num_threads()
        copied = in_bfloat16 if self.encoder.dtype == torch.bfloat16 else copy.deepcopy
        self._decoder = copied(checkpoint.model.decoder).eval().requires_grad_(False).to(self.encoder.device)
        self.trust = checkpoint.trust
        self._judge = Judge(self._decoder, self.vocabulary, self.trust)

    def digest(self) -> str:
        """SHA-256 of the file that it was loaded from, in hexadecimal. Raises CheckpointError if that has changed."""
        if not self.path:
            raise CheckpointError("this model was not loaded from a file, so it has no digest")
        if not self._digest:
            digest = sha256_of(self.path) if self.path.is_file() else ""
            if _state(self.path) != self._state:
                raise CheckpointError(f"{self.path}: has changed since it was loaded: load it again")
            self._digest = digest
        return self._digest

    def reader(self) -> Reader:
        """What the checkpoint's matcher knows of sentences and pictures. Raises CheckpointError if it has none."""
        if not self.path:
            raise CheckpointError("this model was not loaded from a file, so it has no reader of sentences")
        return load_reader(self.path)

    def caption(self, image: ImageSource, options: DecodeOptions | None = None, *, prompt: str = "") -> Caption:
        """Caption one picture. Raises ImageError when it cannot be read."""
        rules = self.rules(options, prompt)
        # Not with `encode`: starting its threads would take as long as reading the picture.
        feature = self.encoder.encode_pixels(Preprocess.batch([self.encoder.pixels(image)]))
        return self._write(feature, rules)[0]

    def caption_batch(self, images: Images, options: DecodeOptions | None = None, *, prompt: str = "") -> list[Caption]:
        """Caption several pictures, one Caption each. Raises ImageError for the first that cannot be read.

        It keeps them all in memory: for many pictures there is `caption_files`.
        """
        rules = self.rules(options, prompt)  # first: the prompt may be wrong, and encoding takes long
        return self._write(self.encode(images), rules)

    def rules(self, options: DecodeOptions | None = None, prompt: str = "") -> Rules:
        """What this model obeys with these options and this prompt. Raises OptionError for what it cannot obey."""
        options = options or DecodeOptions()
        self._judge.check(options)
        if options.evidence is None:
            options = replace(options, evidence=self.config.evidence)
        return Rules.of(options, self.vocabulary, prompt)

    def encode(self, images: Images) -> Tensor:
        """Pictures to features (N, F), float32. Raises ImageError for the first that cannot be read."""
        return self.encoder.encode(images)

    def caption_features(
        self, features: Tensor, options: DecodeOptions | None = None, *, prompt: str = ""
    ) -> list[Caption]:
        """Features (N, F) from `encode` to captions, one per row. Raises ValueError for another shape."""
        if features.ndim != 2 or features.shape[1] != self.feature_size:
            raise ValueError(f"features must have shape (N, {self.feature_size}), not {tuple(features.shape)}")
        return self._write(features, self.rules(options, prompt))

    def prepare(self, image: ImageSource) -> npt.NDArray[np.uint8]:
        """The picture as the encoder sees it, (S, S, 3) uint8, RGB: small, and with the same captions.

        Raises ImageError when the picture cannot be read.
        """
        return np.ascontiguousarray(self.encoder.pixels(image).permute(1, 2, 0).numpy())

    def explain(self, image: ImageSource, options: DecodeOptions | None = None) -> Explanation:
        """Caption one picture and show how the caption came about: candidates, hidden states, heat maps, the beam.

        For the heat maps it encodes the picture about fifty times, each time with another part hidden.
        Raises ImageError when the picture cannot be read.
        """

        def encode(pixels: Tensor) -> Tensor:
            return self.encoder.encode_pixels(pixels).to(self.encoder.dtype)

        return explain(encode, self._decoder, self.encoder.pixels(image), self.rules(options), self.vocabulary)

    def sample(self, options: DecodeOptions | None = None, *, prompt: str = "") -> list[Caption]:
        """Sentences of the language model alone, without a picture: `options.num_captions` of them, the best first.

        Without options it draws one, as with the strategy `sample`.
        """
        rules = self.rules(options or DecodeOptions("sample"), prompt)
        [hypotheses] = decode_state(self._decoder, self._decoder.zero_state(1), rules)
        return [Caption.of(hypothesis, self.vocabulary) for hypothesis in hypotheses]

    def score(self, image: ImageSource, sentence: str) -> Caption:
        """How likely the model finds a given sentence for a picture, word by word.

        Words that the model does not know become `<unk>` in `tokens`, with the probability of that token, and are named
        in `unknown`. As `<unk>` may be more likely than any word, such a `logprob` says nothing.
        Raises ImageError when the picture cannot be read.
        """
        return self.score_features(self.encode([image]), sentence)[0]

    def rank(self, image: ImageSource, sentences: Iterable[str]) -> list[Caption]:
        """Like `score`, for several sentences: the most likely first, and those with unknown words last.

        Raises ImageError when the picture cannot be read.
        """
        return self.rank_features(self.encode([image]), sentences)[0]

    def rank_features(self, features: Tensor, sentences: Iterable[str]) -> list[list[Caption]]:
        """Like `rank`, for features (N, F) from `encode`: a list per row."""
        scored: list[list[Caption]] = [[] for _ in features]
        for sentence in sentences:
            for row, caption in zip(scored, self.score_features(features, sentence), strict=True):
                row.append(caption)
        return [sorted(row, key=lambda caption: (len(caption.unknown), -caption.logprob)) for row in scored]

    def score_features(self, features: Tensor, sentence: str) -> list[Caption]:
        """Like `score`, for features (N, F) from `encode`: one Caption per row."""
        words, ids = self.vocabulary.tokenise(sentence), [*self.vocabulary.encode(sentence), END]
        unknown = tuple(dict.fromkeys(word for word, token in zip(words, ids, strict=False) if token == UNK))
        scored = []
        for feature in features.to(self.encoder.device, self.encoder.dtype).split(1):
            logprobs, _ = teacher_forced(self._decoder, feature, ids)
            chosen = logprobs[torch.arange(len(ids)), ids].tolist()
            caption = Caption.of(Hypothesis(tuple(ids), tuple(chosen)), self.vocabulary)
            scored.append(replace(caption, text=sentence, unknown=unknown))
        return scored

    def caption_files(
        self,
        paths: Images,
        options: DecodeOptions | None = None,
        batch_size: int = BATCH_SIZE,
        *,
        prompt: str = "",
    ) -> Iterator[FileResult]:
        """Caption a folder, or a list of pictures, of any size, as a stream: one FileResult per picture, in order.

        A picture that cannot be read gives a result with an `error` and does not stop the others. Pictures are read a
        few batches ahead, so memory does not grow with their number. One that has no path is called by its place in the
        list, "picture 1" and so on. Raises OptionError for a `batch_size` below 1, InputError for an empty folder.
        """
        named = ((_name(source, number), source) for number, source in enumerate(_each(paths), 1))
        return self.caption_named(named, options, batch_size, prompt=prompt)

    def caption_named(
        self,
        pictures: Iterable[Named],
        options: DecodeOptions | None = None,
        batch_size: int = BATCH_SIZE,
        *,
        prompt: str = "",
        store: FeatureStore | None = None,
    ) -> Iterator[FileResult]:
        """Like `caption_files`, for pictures from anywhere: pairs of a name, which becomes `path`, and a source.

        Instead of a source there may be the ImageError that says why it is missing. `store` keeps features, so that no
        picture is encoded twice.
        """
        if batch_size < 1:
            raise OptionError(f"batch_size must be at least 1, not {batch_size}")
        work = partial(self.caption_together, rules=self.rules(options, prompt), store=store)
        return self._stream(in_batches(pictures, batch_size), work)

    def encode_named(
        self, pictures: Iterable[Named], batch_size: int = BATCH_SIZE, *, store: FeatureStore
    ) -> Iterator[FileResult]:
        """Put the features of pictures into a store. Like `caption_named`, with results that have no caption."""
        batches = in_batches(pictures, batch_size)
        return self._stream(batches, lambda batch: encode_together(self.encoder, batch, store)[0])

    def _stream(
        self, batches: Iterable[list[Named]], work: Callable[[list[Named]], list[FileResult]]
    ) -> Iterator[FileResult]:
        # Each worker takes whole batches from file to caption, on a single thread of torch's. Threads that share a
        # batch would wait for each other after every layer; here reading also overlaps with computing.
        workers = self.encoder.workers
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                yield from chain.from_iterable(in_order(pool, work, batches, workers + 1))
            finally:  # otherwise torch would give new threads of the process the number that ours asked for
                torch.set_num_threads(self._threads)

    def caption_together(
        self, pictures: Iterable[Named], rules: Rules | None = None, store: FeatureStore | None = None
    ) -> list[FileResult]:
        """Like `caption_named`, but all pictures are one batch, and no threads are started for them."""
        results, features = encode_together(self.encoder, [*pictures], store)
        captions = iter(self._write(features, rules or self.rules()) if len(features) else [])
        return [replace(result, caption=next(captions)) if result.error is None else result for result in results]

    def _write(self, features: Tensor, rules: Rules) -> list[Caption]:
        """Features (N, F) to captions, one per row, each with its alternatives."""
        captions: list[Caption] = []
        for part in features.to(self.encoder.device, self.encoder.dtype).split(max(1, ROWS // rules.rows)):
            evidence = self._decoder.words.evidence(part)
            hypotheses = decode(self._decoder, part, rules, evidence=evidence)
            captions += self._judge.judged(hypotheses, part, evidence, rules.options)
        return captions


def _each(images: Images) -> Iterable[ImageSource]:
    """The pictures that were given. A path by itself is a file, a folder or a pattern, as for the commands.

    The letters of a path, the bytes of a file and the rows of an array would be wrong pictures.
    """
    if isinstance(images, str | os.PathLike):
        return find_pictures([os.fspath(images)])
    alone = isinstance(images, bytes | bytearray | memoryview | Image.Image) or hasattr(images, "read")
    return [images] if alone or getattr(images, "ndim", 4) < 4 else images  # type: ignore[list-item, return-value]


def _name(source: ImageSource, number: int) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"picture {number}"


def _state(file: Path) -> tuple[int, ...]:
    """What tells a file from one that is written in its place later; nothing for a missing file."""
    status = file.stat() if file.exists() else None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) if status else ()


@cache
def _most_threads() -> int:
    """The most threads that may be used: by the container's quota, and by what torch was told before the first model.

    Workers do not wait for each other, so a busy machine is no reason to have fewer of them.
    """
    return min(available_cpus(), torch.get_num_threads())
