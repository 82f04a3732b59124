"""What a set of pictures and captions is like before anything is trained on it: `check_data`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from captioner.data.captions import CaptionSet, read_captions
from captioner.data.names import find_files
from captioner.data.splits import Example, Split, SplitNames, identical_files, present_files, same_content, split_names
from captioner.errors import ImageError, OptionError, some
from captioner.machine import available_cpus
from captioner.options import TOKEN_KINDS, DecodeOptions
from captioner.pictures.find import find_pictures
from captioner.pictures.load import load_image
from captioner.templates import render
from captioner.vocab import SPECIAL_TOKENS, fitting_tokens, tokenise

_MINIMUM_COUNTS = (1, 2, 3, 4, 5, 10)


@dataclass(frozen=True)
class VocabularySize:
    """The vocabulary that a minimum count leaves, and the share (0 to 1) of tokens that become `<unk>`."""

    minimum_count: int
    size: int  # special tokens included
    unknown_train: float
    unknown_validation: float


@dataclass(frozen=True)
class Survey:
    """Everything that `check_data` found. Pictures have the names that the captions file gives them."""

    captions: CaptionSet
    images: Path
    tokens: str  # "word" or "character"
    lengths: list[int]  # the number of tokens of each caption, in the order of the file
    minimum_count: int
    vocabulary: list[VocabularySize]  # of the captions to learn from, by minimum count

    files: dict[str, Path]  # the captioned pictures that are in the folder
    missing: list[str]  # captioned pictures that training needs and that are not in the folder
    missing_unlisted: int  # captioned pictures that are neither in the folder nor in the lists
    uncaptioned: list[str]  # names in the lists that have no captions
    without_captions: list[str]  # pictures in the folder that have no captions: paths within it
    unreadable: list[str]  # one message for each picture that cannot be read
    identical: list[list[str]]  # groups of pictures whose files have the same bytes

    split: SplitNames
    train: list[Example]
    validation: list[Example]
    in_both: list[str]  # pictures that both lists name
    identical_in_both: list[tuple[str, str]]  # a picture to learn from and one to validate on with the same bytes

    @property
    def ok(self) -> bool:
        """Whether nothing needed is missing or unreadable, and no picture is in both parts of the split."""
        return not (self.missing or self.uncaptioned or self.unreadable or self.in_both or self.identical_in_both)

    def lines(self) -> list[str]:
        """The survey as text, line by line, safe to print."""
        by_picture, limit = self.captions.captions.values(), DecodeOptions().max_length
        twice = sum(len(texts) - len(set(texts)) for texts in by_picture)
        values = {"texts": list(chain(*by_picture)), "twice": twice, "limit": limit, "some": some}
        return "".join(render("survey.txt", **vars(self), **values)).splitlines()


def check_data(
    captions: str | Path,
    images: str | Path,
    *,
    train_list: str | Path | None = None,
    val_list: str | Path | None = None,
    tokens: str = "auto",
    minimum_count: int = 4,
    seed: int = 0,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> Survey:
    """Examine captions and pictures, and what training would see of them. Every picture is read.

    `captions` is a file in any common layout, `images` the folder of the pictures. `train_list` and `val_list` are
    files with the names of pictures to learn from and to validate on; `tokens`, `minimum_count` and `seed` mean the
    same as in training. `progress`, such as `tqdm.tqdm`, wraps an iterable and is told its `total`.
    Raises DataError if a file is not as it should be or no picture is there, OptionError for impossible options.
    """
    if tokens not in ("auto", *TOKEN_KINDS):
        raise OptionError(f"tokens must be one of auto, {', '.join(TOKEN_KINDS)}, not {tokens!r}")
    folder = Path(images)
    known = read_captions(Path(captions)).with_words()
    texts = [text for those in known.captions.values() for text in those]
    tokens = fitting_tokens(texts) if tokens == "auto" else tokens
    files = (find_files if train_list else present_files)(known.captions, folder)
    split = split_names(known, files, train_list, val_list, seed)
    needed = list(dict.fromkeys([*split.train, *split.validation] if train_list else known.captions))
    missing = [name for name in needed if name in known.captions and name not in files]
    names = {path: name for name, path in files.items()}
    found = map(Path, find_pictures([str(folder)], recursive=True) if files else [])
    train, validation = (
        [Example(name, files[name], tuple(known.captions[name])) for name in those if name in files]
        for those in (split.train, split.validation)
    )
    learned, others = (
        (tokenise(text, tokens) for one in those for text in one.captions) for those in (train, validation)
    )
    in_both = split.overlap()
    return Survey(
        captions=known,
        images=folder,
        tokens=tokens,
        lengths=[len(tokenise(text, tokens)) for text in texts],
        minimum_count=minimum_count,
        vocabulary=vocabulary_sizes(learned, others, sorted({*_MINIMUM_COUNTS, minimum_count})),
        files=files,
        missing=missing,
        missing_unlisted=sum(name not in files for name in known.captions) - len(missing),
        uncaptioned=[name for name in needed if name not in known.captions],
        without_captions=[path.relative_to(folder).as_posix() for path in found if path not in names],
        unreadable=_unreadable([files[name] for name in needed if name in files], progress),
        identical=[[names[path] for path in group] for group in identical_files(names)],
        split=split,
        train=train,
        validation=validation,
        in_both=in_both,
        identical_in_both=[pair for pair in same_content(Split(train, validation, {})) if pair[0] not in in_both],
    )


def _unreadable(paths: Sequence[Path], progress: Callable[..., Iterable[Any]] | None) -> list[str]:
    """Read pictures; returns one message for each that cannot be read."""

    def problem(path: Path) -> str:
        try:
            load_image(path)
        except ImageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(available_cpus()) as pool:
        problems: Iterable[str] = pool.map(problem, paths)
        return list(filter(None, progress(problems, total=len(paths)) if progress else problems))


def vocabulary_sizes(
    train: Iterable[Sequence[str]], validation: Iterable[Sequence[str]], minimum_counts: Iterable[int]
) -> list[VocabularySize]:
    """The vocabulary of the tokenised captions to learn from, for each of the minimum counts."""
    counts, others = (Counter(token for tokens in those for token in tokens) for those in (train, validation))

    def unknown(those: Counter[str], minimum: int) -> float:
        return sum(number for token, number in those.items() if counts[token] < minimum) / max(1, those.total())

    def size(minimum: int) -> int:
        return len(SPECIAL_TOKENS) + sum(number >= minimum for number in counts.values())

    return [VocabularySize(n, size(n), unknown(counts, n), unknown(others, n)) for n in minimum_counts]
