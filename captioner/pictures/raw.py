"""Raw files of cameras: the preview that the camera put into them. Needs the extra [raw], which brings rawpy."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from PIL import Image
from PIL.ExifTags import Base as Tag

from captioner.errors import ImageError, one_line, to_install

RAW = frozenset(
    {".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".sr2", ".srf", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"}
    | {".3fr", ".fff", ".iiq", ".rwl", ".mrw", ".erf", ".kdc", ".mos", ".x3f"}
)
_ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)  # of EXIF, for the flips of LibRaw
_one = threading.Lock()  # developing takes hundreds of MB


def available() -> bool:
    """Whether the extra is installed."""
    return find_spec("rawpy") is not None


def open_raw(file: Any, name: str, max_pixels: int, smallest: int) -> tuple[Image.Image, int]:
    """The largest preview in an open raw file, and the EXIF orientation that turns it upright.

    Without a preview, or with one that has a side below `smallest` pixels, the raw file is developed at half size.
    Raises ImageError.
    """
    if not available():
        raise ImageError(f"{name}: is a raw file, which needs rawpy: {to_install('raw')}")
    import rawpy

    with _errors_of_libraw(name), rawpy.imread(_source(file)) as raw:
        sizes = raw.sizes
        try:
            preview = _preview(raw.extract_thumb())
        except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
            preview = None
        if preview and min(preview.size) >= smallest:
            orientation = preview.getexif().get(Tag.Orientation) or _ORIENTATIONS[sizes.flip]
            # Some programs write previews that are upright already. LibRaw gives those the orientation of the raw file.
            turned = orientation > 4 and (preview.width > preview.height) != (sizes.width > sizes.height)
            return preview, 1 if turned else orientation
        check_pixels((sizes.raw_width, sizes.raw_height), name, max_pixels)
        with _one:
            return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True)), 1


def check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise ImageError for a picture of so many pixels across and down that they are too many."""
    if size[0] * size[1] > max_pixels:
        raise ImageError(f"{name}: {size[0]} x {size[1]} is more than {max_pixels / 1e6:g} million pixels")


def _source(file: Any) -> Any:
    """What rawpy opens: the path of a file, of which it reads a part only, or else the file."""
    path = getattr(file, "name", None)
    try:
        os.fspath(path).encode()  # type: ignore[arg-type]
    except (TypeError, ValueError, AttributeError):
        return file
    return path


def _preview(thumb: Any) -> Image.Image:
    if isinstance(thumb.data, bytes):
        return Image.open(io.BytesIO(thumb.data), "r", ("JPEG",))
    return Image.fromarray(thumb.data)


@contextmanager
def _errors_of_libraw(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # those of LibRaw hold bytes
        reason = error.args[0] if error.args else error
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise ImageError(f"{name}: a raw file that cannot be read ({one_line(reason)})") from error
