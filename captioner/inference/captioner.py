"""`load` a checkpoint, and get a `Captioner`: load once, encode once, decode as often as you like."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captioner.errors import CheckpointError, DeviceError, OptionError, to_install_torch
from captioner.files import sha256_of
from captioner.inference.decoding import ROWS, Hypothesis, decode
from captioner.inference.engine import Engine
from captioner.inference.parallel import BATCH_SIZE, in_batches, in_order
from captioner.inference.reader import Reader, load_reader
from captioner.inference.results import Caption, FileResult
from captioner.inference.rules import Floats, Rules, log_softmax
from captioner.inference.store import FeatureStore, Named, encode_together
from captioner.inference.trust import Judge
from captioner.machine import available_cpus
from captioner.network.header import DEFAULT, find_checkpoint, is_exported
from captioner.options import ENGINES, DecodeOptions
from captioner.pictures.find import find_pictures
from captioner.pictures.load import ImageSource
from captioner.vocab import END, START, UNK

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.explanation import Explanation

Images: TypeAlias = "ImageSource | Iterable[ImageSource]"
Features: TypeAlias = "NDArray[np.float32]"


def load(
    path: str | os.PathLike[str] | None = None, device: str = "auto", precision: str = "auto", engine: str = "auto"
) -> Captioner:
    """Load a checkpoint: a file, or a shipped one by its short name; by default `flickr8k`.

    It may also be the folder of an exported model, as `captioner export` writes it. Such a model computes with
    onnxruntime and needs no torch. `engine`, "torch" or "onnx", refuses what would compute with the other.

    `device` is a torch device, or "auto": CUDA where torch sees it, then Apple's MPS, then the CPU. On the CPU the
    whole process keeps the memory that it frees from now on, which is much faster (see `machine.keep_freed_memory`),
    and torch uses no more threads than there are processors that other programs leave free.
    `precision` is "float32", which is exact, "bfloat16", which is faster and scores the same but words some captions
    differently, or "auto": bfloat16 where the processor computes in it. An exported model has the precision that it was
    exported in, and computes on the CPU.
    Raises CheckpointError when the file is missing or damaged, OptionError for an unknown precision or engine, and
    DeviceError when there is no such device, or what computes is not installed.
    """
    if engine not in ENGINES:
        raise OptionError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    found = find_checkpoint(path)
    exported, state = is_exported(found), _state(found)
    if engine == "torch" and exported:
        raise DeviceError(f"{found}: an exported model computes with onnxruntime: leave the engine (--engine) out")
    if engine == "onnx" and not exported:
        how = f"write it with `captioner export --checkpoint {path or DEFAULT} --output FOLDER`, and give the folder"
        raise DeviceError(f"{found}: is no exported model, which the engine onnx needs: {how}")
    captioner = Captioner(_engine(found, exported, device, precision))
    captioner.path, captioner._state = found, state
    return captioner


def _engine(found: Path, exported: bool, device: str, precision: str) -> Engine:
    """What computes a model. Either is imported when it is needed: torch takes seconds, and may not be installed."""
    if exported:
        from captioner.inference.onnx_engine import OnnxEngine

        return OnnxEngine(found, device, precision)
    try:
        from captioner.inference.torch_engine import load_engine
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        how = f"install it with {to_install_torch()}, or give the folder of an exported model"
        raise DeviceError(f"{found}: this checkpoint needs torch, which is not installed: {how}") from error
    return load_engine(found, device, precision)


class Captioner:
    """A checkpoint, ready to write captions. Make one with `captioner.load()`.

    Threads may share it: any number of them may call its methods at once, and each gets what it would get alone.
    Pictures are paths, the bytes of files, open files, PIL images, arrays or tensors (see `pictures.load.load_image`).
    Methods that take several take a list of any of these, or the path of a folder, which stands for its pictures.
    Methods that take a `prompt` begin every caption with its words; `max_length` includes them. They raise OptionError
    for words that the model does not know, and for a prompt that leaves no room for another word.
    """

    def __init__(self, engine: Engine) -> None:
        self.network, about = engine, engine.about
        self.config, self.vocabulary, self.trust = about.config, about.vocabulary, about.trust
        self.provenance, self.preprocess = about.provenance, about.preprocess
        self.engine, self.device, self.precision = engine.name, engine.device, engine.precision
        self.feature_size = engine.feature_size
        self.path: Path | None = None  # the file that it was loaded from
        self._state: tuple[int, ...] = ()  # of that file when it was loaded
        self._digest = ""
        self._rules_of = lru_cache(64)(Rules.of)  # for one picture, making them would take longer than obeying them
        self._judge = Judge(self.vocabulary, self.trust, about.predicted)

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
        return self._write(self.encode_pixels(self.preprocess.read(image)[None]), rules)[0]

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
        return self._rules_of(options, self.vocabulary, prompt)

    def encode(self, images: Images) -> Features:
        """Pictures to features (N, F), float32. Raises ImageError for the first that cannot be read."""
        with ThreadPoolExecutor(available_cpus()) as pool:
            read = in_order(pool, self.preprocess.read, _each(images), 3 * BATCH_SIZE)
            features = [self.encode_pixels(np.stack(batch)) for batch in in_batches(read, BATCH_SIZE)]
        return np.concatenate([np.empty((0, self.feature_size), dtype=np.float32), *features])

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> Features:
        """Pictures as `prepare` makes them, (B, S, S, 3), to features (B, F), float32."""
        return self.network.encode(pixels)

    def caption_features(
        self, features: Features, options: DecodeOptions | None = None, *, prompt: str = ""
    ) -> list[Caption]:
        """Features (N, F) from `encode` to captions, one per row. Raises ValueError for another shape."""
        return self._write(self._checked(features), self.rules(options, prompt))

    def prepare(self, image: ImageSource) -> NDArray[np.uint8]:
        """The picture as the encoder sees it, (S, S, 3) uint8, RGB: small, and with the same captions.

        Raises ImageError when the picture cannot be read.
        """
        return self.preprocess.read(image)

    def explain(self, image: ImageSource, options: DecodeOptions | None = None) -> Explanation:
        """Caption one picture and show how the caption came about: candidates, hidden states, heat maps, the beam.

        For the heat maps it encodes the picture about fifty times, each time with another part hidden.
        Raises ImageError when the picture cannot be read, DeviceError for an exported model.
        """
        return self.network.explain(self.preprocess.read(image), self.rules(options))

    def sample(self, options: DecodeOptions | None = None, *, prompt: str = "") -> list[Caption]:
        """Sentences of the language model alone, without a picture: `options.num_captions` of them, the best first.

        Without options it draws one, as with the strategy `sample`.
        """
        rules = self.rules(options or DecodeOptions("sample"), prompt)
        [hypotheses] = decode(self.network, self.network.zero_state(1), 1, rules)
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

    def rank_features(self, features: Features, sentences: Iterable[str]) -> list[list[Caption]]:
        """Like `rank`, for features (N, F) from `encode`: a list per row."""
        scored: list[list[Caption]] = [[] for _ in features]
        for sentence in sentences:
            for row, caption in zip(scored, self.score_features(features, sentence), strict=True):
                row.append(caption)
        return [sorted(row, key=lambda caption: (len(caption.unknown), -caption.logprob)) for row in scored]

    def score_features(self, features: Features, sentence: str) -> list[Caption]:
        """Like `score`, for features (N, F) from `encode`: one Caption per row."""
        words, ids = self.vocabulary.tokenise(sentence), [*self.vocabulary.encode(sentence), END]
        unknown = tuple(dict.fromkeys(word for word, token in zip(words, ids, strict=False) if token == UNK))
        features = self._checked(features)
        logprobs = [self._forced(features[place : place + ROWS], ids) for place in range(0, len(features), ROWS)]
        chosen = (row for part in logprobs for row in part.tolist())
        captions = (Caption.of(Hypothesis(tuple(ids), tuple(row)), self.vocabulary) for row in chosen)
        return [replace(caption, text=sentence, unknown=unknown) for caption in captions]

    def _forced(self, features: Features, ids: Sequence[int]) -> Floats:
        """The log-probability of each of the tokens of a sentence (T,) for features (N, F): (N, T). Teacher forcing."""
        chosen, state = np.empty((len(features), len(ids))), self.network.look(features).state
        for place, (before, token) in enumerate(zip([START, *ids], ids, strict=False)):
            logits, state = self.network.step(np.full(len(features), before, dtype=np.int64), state)
            chosen[:, place] = log_softmax(logits)[:, token]
        return chosen

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
        return self._stream(batches, lambda batch: encode_together(self.network, batch, store)[0])

    def _stream(
        self, batches: Iterable[list[Named]], work: Callable[[list[Named]], list[FileResult]]
    ) -> Iterator[FileResult]:
        # Each worker takes whole batches from file to caption. Threads that share a batch would wait for each other
        # after every layer; here reading also overlaps with computing.
        network = self.network
        with ThreadPoolExecutor(network.workers, initializer=network.work_alone) as pool:
            try:
                yield from chain.from_iterable(in_order(pool, work, batches, network.workers + 1))
            finally:
                network.work_together()

    def caption_together(
        self, pictures: Iterable[Named], rules: Rules | None = None, store: FeatureStore | None = None
    ) -> list[FileResult]:
        """Like `caption_named`, but all pictures are one batch, and no threads are started for them."""
        results, features = encode_together(self.network, [*pictures], store)
        captions = iter(self._write(features, rules or self.rules()) if len(features) else [])
        return [replace(result, caption=next(captions)) if result.error is None else result for result in results]

    def _write(self, features: Features, rules: Rules) -> list[Caption]:
        """Features (N, F) to captions, one per row, each with its alternatives."""
        captions: list[Caption] = []
        some = max(1, ROWS // rules.rows)
        for place in range(0, len(features), some):
            look = self.network.look(features[place : place + some])
            hypotheses = decode(self.network, look.state, len(look.kind), rules, look.evidence)
            captions += self._judge.judged(hypotheses, look, rules.options)
        return captions

    def _checked(self, features: Any) -> Features:
        """Features of any kind of array or tensor as they should be."""
        if hasattr(features, "detach"):
            features = features.detach().cpu().float().numpy()
        found = np.require(features, np.float32, ["C", "W"])  # as torch wants them
        if found.ndim != 2 or found.shape[1] != self.feature_size:
            raise ValueError(f"features must have shape (N, {self.feature_size}), not {found.shape}")
        return found


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
