"""Import torchvision where its compiled operators cannot load.

pip may pair a CPU-only torch with a torchvision wheel that was linked against CUDA. The wheel's `_C` library then
does not load, and `import torchvision` dies with "operator torchvision::nms does not exist", because torchvision
registers shape functions for operators that nobody declared. We only need `torchvision.models`, which is pure
Python, so declaring the names of those operators is enough. They stay without an implementation: whoever calls
one still gets an error. Where the library loads, nothing is declared.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import torch

# What torchvision 0.21 to 0.28 registers shape functions for, as its C++ sources declare it.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# torch.library drops a declaration when the object that made it goes away.
_declared: list[torch.library.Library] = []


@cache
def prepare_torchvision() -> bool:
    """Make `import torchvision` work; call this before the import.

    Returns True where the compiled operators load, False where their names were declared instead.
    Raises ImportError where torchvision is not installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError('torchvision is not installed: pip install "torchvision<0.29"')
    if _operators_load(Path(spec.origin).parent):
        return True
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _declared.append(library)
    return False


def _operators_load(package: Path) -> bool:
    for pattern in ("_C*.so", "_C*.pyd"):
        for library in package.glob(pattern):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                return False
            return True
    return False
