"""A page that captions pictures inside the browser: a folder of static files for any web server.

    *.html, *.css, *.js ...  the page, from the folder `page` beside this module
    onnxruntime.js, .wasm    what computes the model, from the package onnxruntime-web of npm
    *.onnx, captioner.json   the model in 8 bits and less: unpacked, a folder that `captioner.load` reads
    sw.js                    the service worker, with the list of all these files

Files that only the page's own program reads are packed, and it unpacks them: not every server packs what it sends.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from captioner.errors import DeviceError, OutputError
from captioner.export.folder import ENCODER, START, STEP, export_model, write
from captioner.files import AnyPath
from captioner.network.header import EXPORTED

RUNTIME = "1.30.0"  # of onnxruntime-web; the newest one when the page was tested
_PAGE = Path(__file__).with_name("page")
_WORKER, _HOME = "sw.js", "index.html"
_HOME_ADDRESS = "./"  # a page is asked for by the address of its folder; some servers redirect that of index.html
# How the service worker of a page begins, whatever its version. Other websites have a file of that name, too.
_BEGINNING = re.compile(rb'const VERSION = "[0-9a-f]{16}";\r?\nconst FILES = (\{.*\});\r?\n')
_UNFINISHED = b'throw new Error("The export of this page is not complete. Run captioner export --web again.");\n'
# Its files by their names in the page, with their digests: they come over the network, from a registry.
_OF_RUNTIME = {
    "onnxruntime.js": ("ort.wasm.bundle.min.mjs", "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"),
    "onnxruntime.wasm": (
        "ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
_PACKED = (".wasm", ".onnx", ".json")
# Bits of the decoder's matrices where 8 are more than captions need: docs/browser.md has what was measured.
_BITS = {
    START: {"words.classifier": 4, "h0": 5, "c0": 6},
    STEP: {"embedding": 6, "recurrent": 5, "output": 7},
}


def export_web(checkpoint: AnyPath | None, output: AnyPath, runtime: AnyPath) -> Path:
    """Write the page with a checkpoint's model into the folder `output`, and return it.

    The checkpoint is named as for `captioner.load`. `runtime` is the folder `dist` of the package onnxruntime-web, or
    the folder of the package. A page that is in the folder already is replaced, also one whose export broke off;
    visitors get the new one at their next visit. Raises CheckpointError for the checkpoint, DeviceError without the
    extra `onnx` and where the runtime is missing or of another version, OutputError for a folder without a page that
    holds other files, and for files beside a page whose names the new one needs.
    """
    folder, files = Path(output), _runtime(Path(runtime))
    ours = _names(folder)
    files |= {path.name: path.read_bytes() for path in _PAGE.iterdir()} | _model(checkpoint)
    files = dict(_packed(name, content) for name, content in sorted(files.items()))
    for name in files:
        if name not in ours and os.path.lexists(folder / name):
            raise OutputError(f"{folder / name}: is no file of the page and would be replaced: name another folder")
    worker = files.pop(_WORKER)
    version, sizes = _version({**files, _WORKER: worker}), _sizes(files)
    folder.mkdir(parents=True, exist_ok=True)
    # The service worker comes last: it says that there is a new version. Until then another one stands in its place, by
    # which an export that broke off knows its files again. No browser takes it.
    old = _sizes(dict.fromkeys(ours - {_WORKER}, b""))
    write(folder / _WORKER, _listing(version, old | sizes) + _UNFINISHED)
    for name, content in files.items():
        write(folder / name, content)
    write(folder / _WORKER, _listing(version, sizes) + worker)
    return folder


def _names(folder: Path) -> set[str]:
    """The names of the files of the page that is in a folder. None where the folder is empty, or is missing.

    Raises OutputError where there is something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return set()
    with suppress(OSError, ValueError):  # ValueError: FILES is no JSON
        if found := _BEGINNING.match((folder / _WORKER).read_bytes()):
            return {_WORKER, *(_HOME if name == _HOME_ADDRESS else name for name in json.loads(found[1]))}
    raise OutputError(f"{folder}: holds something else than a page of captioner: name another folder")


def _runtime(folder: Path) -> dict[str, bytes]:
    """The files of onnxruntime-web by their names in the page."""
    get = f"npm install onnxruntime-web@{RUNTIME}, then name node_modules/onnxruntime-web/dist (--runtime)"
    if (folder / "dist").is_dir():
        folder = folder / "dist"
    found = {}
    for name, (there, digest) in _OF_RUNTIME.items():
        if not (folder / there).is_file():
            raise DeviceError(f"{folder / there}: is missing, which comes with onnxruntime-web: {get}")
        found[name] = (folder / there).read_bytes()
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise DeviceError(f"{folder / there}: is not that of onnxruntime-web {RUNTIME}: {get}")
    return found


def _model(checkpoint: AnyPath | None) -> dict[str, bytes]:
    """The files of the model, as `export_model` names them, without the matcher, which writes no captions."""
    with tempfile.TemporaryDirectory() as place:
        exported = export_model(checkpoint, Path(place) / "model", bits=8)  # it says so where onnx is missing
        import onnx

        from captioner.export.weights import coarser

        networks = {name: onnx.load(exported / name) for name in (ENCODER, START, STEP)}
        content = json.loads((exported / EXPORTED).read_text(encoding="utf-8"))
    files = {name: coarser(network, _BITS.get(name, {})).SerializeToString() for name, network in networks.items()}
    content["files"] = {name: hashlib.sha256(network).hexdigest() for name, network in files.items()}
    return {**files, EXPORTED: json.dumps(content, ensure_ascii=False).encode()}


def _packed(name: str, content: bytes) -> tuple[str, bytes]:
    if not name.endswith(_PACKED):
        return name, content
    return f"{name}.gz", gzip.compress(content, 9, mtime=0)  # no time: the same model is the same version


def _version(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _sizes(files: dict[str, bytes]) -> dict[str, int]:
    """The sizes of files by the addresses by which the page asks for them."""
    return {_HOME_ADDRESS if name == _HOME else name: len(content) for name, content in files.items()}


def _listing(version: str, sizes: dict[str, int]) -> bytes:
    """What the service worker has to know: the version, and the sizes of the files that a visit needs."""
    return f"const VERSION = {json.dumps(version)};\nconst FILES = {json.dumps(sizes)};\n".encode()
