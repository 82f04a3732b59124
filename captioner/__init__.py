"""Captions for pictures on your own machine: one small file, no network, no GPU.

    import captioner

    model = captioner.load()  # a checkpoint that comes with captioner, by name, or a file
    print(model.caption("dog.jpg").text)

A model, and what it writes
    load(path, device, precision)        a Captioner with caption, caption_batch, encode, score, rank, sample, explain
    models()                             the checkpoints that come with captioner
    DecodeOptions(strategy, ...)         how captions are chosen: greedily, by sampling or by beam search
    Caption                              a sentence with the probability of each word

Whole jobs, each of which is also a command
    caption_files(paths, output)         captioner caption: many pictures, resumable, in any format
    MetadataOptions(xmp_name, ...)       how captions go into XMP sidecar files and into pictures
    open_index(paths)                    captioner find: pictures by a sentence, similar ones, and duplicates
    read_files(paths, output)            captioner read: the captions that pictures have already
    apply_captions(file, format=...)     captioner apply: captions that a person corrected, into their places
    watch_folders(folders)               captioner watch: captions what comes into folders, for ever
    serve(port=..., token=...)           captioner serve: answers apps that ask for captions over HTTP
    ServeOptions(queue, ...)             how much a server takes at once
    caption_on_cluster(paths, output)    captioner cluster: the same with the workers of Ray
    alt_texts(paths, write=...)          captioner alt: alternative text for the pictures of web pages and documents
    evaluate(captions, images=...)       captioner evaluate: BLEU, ROUGE-L and CIDEr beside their yardsticks
    evaluate_retrieval(captions, ...)    captioner evaluate --retrieval: how well sentences find their pictures
    compare(first, second)               captioner compare: is the difference of two evaluations chance?
    train(captions, images, output)      captioner train: a checkpoint from your own captions, by a TrainConfig
    check_data(captions, images)         captioner data check: what a data set holds, and what is wrong with it
    export_model(checkpoint, output)     captioner export: ONNX files, for programs without torch
    export_web(checkpoint, output, ...)  captioner export --web: a page that captions pictures inside the browser
    propose(paths, output)               captioner data next: the pictures to caption by hand next
    make_shapes(folder)                  captioner data make-shapes: a small data set to try everything on
    make_unfamiliar(folder)              captioner data make-unfamiliar: pictures that are no ordinary photographs

Errors that a person can mend; CaptionerError is the base of all of them
    OptionError  InputError  ImageError  DataError  CheckpointError  DeviceError  OutputError  TrainingError

Use help(captioner.load) and so on for the rest. Importing this package is cheap: torch is imported when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ERRORS = (
    *("CaptionerError", "OptionError", "InputError", "ImageError", "DataError", "CheckpointError"),
    *("DeviceError", "OutputError", "TrainingError"),
)
# Where the public names come from. Type checkers and editors read the same in __init__.pyi.
_HOMES = {
    "load": "inference.captioner",
    "Captioner": "inference.captioner",
    "Caption": "inference.results",
    "models": "network.header",
    "DecodeOptions": "options",
    "MetadataOptions": "options",
    "caption_files": "bulk.run",
    "open_index": "bulk.find",
    "read_files": "bulk.read",
    "apply_captions": "bulk.apply",
    "watch_folders": "bulk.watch",
    "propose": "bulk.propose",
    "export_model": "export.folder",
    "export_web": "export.web",
    "serve": "server.run",
    "ServeOptions": "options",
    "caption_on_cluster": "bulk.cluster",
    "alt_texts": "bulk.alt",
    "evaluate": "evaluation.run",
    "evaluate_retrieval": "evaluation.retrieval",
    "compare": "evaluation.compare",
    "train": "training.run",
    "TrainConfig": "training.config",
    "check_data": "data.survey",
    "make_shapes": "data.shapes",
    "make_unfamiliar": "pictures.unfamiliar",
    **dict.fromkeys(_ERRORS, "errors"),
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, for dir(), help() and whatever completes names."""
    return sorted(__all__)
