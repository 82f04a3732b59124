"""Evaluate captions against those that people wrote: `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from captioner.data.captions import read_captions
from captioner.data.names import find_files
from captioner.errors import OptionError, counted
from captioner.evaluation.pairs import Pairs
from captioner.evaluation.scores import COMPUTES, Evaluation, recipe
from captioner.options import TOKEN_KINDS, DecodeOptions
from captioner.vocab import fitting_tokens, tokenise

_NOTHING = "give images (--images DIR) and a model that captions them, or captions with predictions (--predictions)"


class Model(Protocol):
    """What evaluation needs of a `Captioner`. Results have a `path`, a `caption` or None, and an `error` or None."""

    @property
    def engine(self) -> str: ...
    @property
    def precision(self) -> str: ...
    def digest(self) -> str: ...
    def caption_files(self, paths: Iterable[str], options: DecodeOptions | None = None) -> Iterator[Any]: ...


def evaluate(
    captions: str | Path,
    *,
    images: str | Path | None = None,
    predictions: str | Path | None = None,
    model: Model | Callable[[], Model] | None = None,
    options: DecodeOptions | None = None,
    split: str | None = None,
    split_list: str | Path | None = None,
    coco_images: str | Path | None = None,
    tokens: str | None = None,
    allow_missing: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> Evaluation:
    """Score captions against those that people wrote: BLEU-1 to 4, ROUGE-L and CIDEr-D.

    `captions` is a file with the references, in any common layout. The captions to score are either those in the file
    `predictions` (COCO results, jsonl or csv), or those that `model` writes with `options` for the pictures in the
    folder `images`. `model` is a Captioner or a function that loads one, such as `captioner.load`; it is called only
    after the references and the folder have been found usable.

    All pictures of the captions file are evaluated, or those that the file assigns to `split`, or those whose names
    are in the file `split_list`. `coco_images` is a JSON file with the COCO numbers of pictures, for predictions.
    `tokens` says whether captions are compared as words ("word") or characters ("character"); by default their script
    decides. `say` gets notes and warnings, one line each; `progress`, such as `tqdm.tqdm`, wraps an iterable and is
    told its `total`.

    Raises OptionError for arguments that contradict each other, DataError for files that cannot be used and, unless
    `allow_missing`, for pictures that lack a caption, references or a readable file.
    """
    for wrong, message in (
        (tokens not in (None, *TOKEN_KINDS), f"tokens must be one of {', '.join(TOKEN_KINDS)}, not {tokens!r}"),
        (predictions and (model or options), "predictions (--predictions) are captions already: leave out the model"),
        (coco_images and not predictions, "coco_images (--coco-images) goes with predictions (--predictions) only"),
        (not predictions and not (images and model), _NOTHING),
        (split and split_list, "split (--split) and split_list (--split-list) both select pictures: leave out one"),
    ):
        if wrong:
            raise OptionError(message)
    known = read_captions(Path(captions))
    if known.empty:
        say(f"left out: {counted(known.empty, 'empty reference')}")
    for note in known.notes:
        say(f"{captions}: {note}")
    pairs = Pairs.of(known, split, split_list, allow_missing)
    tokens = tokens or fitting_tokens(text for those in pairs.references.values() for text in those)
    if predictions:
        source = pairs.add_predictions(Path(predictions), known, coco_images, say)
        pairs.files = find_files(pairs.references, Path(images)) if images else {}
    else:
        assert images and model  # noqa: PT018  # checked above; the type checker cannot see it
        source = _caption(pairs, Path(images), model, options or DecodeOptions(), say, progress)
    pairs.note("empty", [name for name, text in pairs.captions.items() if not tokenise(text)])
    pairs.refuse()
    for line in pairs.described():
        say(f"warning: {line}")
    result = pairs.scored(tokens)
    packages = ["captioner", "nltk", *([] if predictions else COMPUTES.get(source["engine"], []))]
    return replace(result, recipe=recipe(result, source, packages))


def _caption(
    pairs: Pairs,
    images: Path,
    model: Model | Callable[[], Model],
    options: DecodeOptions,
    say: Callable[[str], None],
    progress: Callable[..., Iterable[Any]] | None,
) -> dict[str, str]:
    """Find the pictures and let the model write the captions. Returns what the recipe says of them.

    Raises DataError for missing pictures and, if all pictures are evaluated, for those without references.
    """
    pairs.find_pictures(images)
    names = {str(path): name for name, path in pairs.files.items()}
    model = model() if callable(model) else model
    digest = model.digest()
    results: Iterable[Any] = model.caption_files(names, options)
    for result in progress(results, total=len(names)) if progress else results:
        name, caption = names[result.path], result.caption
        if caption is None:
            say(str(result.error))
            pairs.note("unreadable", [name])
        else:
            pairs.captions[name] = caption.text
            pairs.words[name] = tuple(zip(caption.tokens, caption.probabilities, strict=True))
            if caption.confidence is not None:
                pairs.confidence[name] = caption.confidence, caption.familiar
    # What is not set is as the checkpoint says.
    used = {name: value for name, value in options.used().items() if value not in (None, "")}
    decoding = ",".join(f"{name}={f'{v:g}' if isinstance(v, float) else v}" for name, v in used.items())
    return {"decoding": decoding, "precision": model.precision, "engine": model.engine, "checkpoint": digest[:12]}
