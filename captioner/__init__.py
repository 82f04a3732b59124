"""captioner: captions for pictures on your own machine.

    import captioner
    model = captioner.load()
    print(model.caption("dog.jpg").text)

Importing the package is cheap; torch is imported when `load` is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Caption", "Captioner", "DecodeOptions", "__version__", "load"]

if TYPE_CHECKING:
    from captioner.inference.captioner import Captioner, load
    from captioner.inference.results import Caption
    from captioner.options import DecodeOptions


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name == "DecodeOptions":
        from captioner.options import DecodeOptions

        return DecodeOptions
    if name in __all__:
        from captioner.inference import captioner as inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
