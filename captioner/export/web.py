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
import tempfile
from pathlib import Path

from captioner.errors import DeviceError, OutputError
from captioner.export.folder import ENCODER, START, STEP, export_model
from captioner.files import replacing
from captioner.network.header import EXPORTED

RUNTIME = "1.30.0"  # of onnxruntime-web; the newest one when the page was tested
_PAGE = Path(__file__).with_name("page")
_WORKER, _HOME = "sw.js", "index.html"
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


def export_web(
    checkpoint: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    runtime: str | os.PathLike[str],
) -> Path:
    """Write the page with a checkpoint's model into the folder `output`, and return it.

    The checkpoint is named as for `captioner.load`. `runtime` is the folder `dist` of the package onnxruntime-web, or
    the folder of the package. A page that is in the folder already is replaced; visitors get the new one at their next
    visit. Raises CheckpointError for the checkpoint, DeviceError without the extra `onnx` and where the runtime is
    missing or of another version, OutputError for a folder that holds other files.
    """
    folder, files = Path(output), _runtime(Path(runtime))
    if folder.exists() and not (folder.is_dir() and ((folder / _WORKER).exists() or not any(folder.iterdir()))):
        raise OutputError(f"{folder}: holds something else than a page of captioner: name another folder")
    files |= {path.name: path.read_bytes() for path in _PAGE.iterdir()} | _model(checkpoint)
    files = dict(_packed(name, content) for name, content in sorted(files.items()))
    files[_WORKER] = _listing(files).encode() + files[_WORKER]
    folder.mkdir(parents=True, exist_ok=True)
    # The service worker comes last: it says that there is a new version.
    for name in sorted(files, key=lambda name: name == _WORKER):
        with replacing(folder / name, "wb") as file:
            file.write(files[name])
    return folder


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


def _model(checkpoint: str | os.PathLike[str] | None) -> dict[str, bytes]:
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


def _listing(files: dict[str, bytes]) -> str:
    """What the service worker has to know: the version, and the sizes of the files that a visit needs."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    # A page is asked for by the address of its folder; some servers redirect that of index.html.
    sizes = {"./" if name == _HOME else name: len(files[name]) for name in files if name != _WORKER}
    return f"const VERSION = {json.dumps(digest.hexdigest()[:16])};\nconst FILES = {json.dumps(sizes)};\n"
