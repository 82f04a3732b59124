"""Import torchvision where its compiled operators cannot load.

pip may pair a CPU-only torch with a torchvision wheel that was linked against CUDA. The wheel's `_C` library then
does not load, and `import torchvision` fails with "operator torchvision::nms does not exist", because torchvision
registers shape functions for operators that nobody declared. We need only `torchvision.models`, which is pure Python,
so it is enough to declare these operators. They have no implementation: calling one is still an error. Where the
library loads, nothing is declared.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import torch

# How the C++ sources of torchvision declare nms and qnms, for which 0.21 to 0.28 registers shape functions.
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def prepare_torchvision() -> bool:
    """Make `import torchvision` work; to be called before it. Raises ImportError where torchvision is not installed.

    Returns True where the compiled operators load, False where they were declared instead.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError('torchvision is not installed: pip install "torchvision<0.29"')
    if _operators_load(Path(spec.origin).parent):
        return True
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)
    return False


def _operators_load(package: Path) -> bool:
    libraries = [*package.glob("_C*.so"), *package.glob("_C*.pyd")]
    try:
        torch.ops.load_library(str(libraries[0]))
    except (IndexError, OSError):
        return False
    return True
