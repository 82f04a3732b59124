"""Picture files and bytes to checked RGB pictures, and from there to the network's input.

Between here and the encoder pictures travel as uint8 tensors (3, S, S), RGB, 0 to 255. `Preprocess.normalise`
turns a batch of them into what the encoder was trained on.
"""

from __future__ import annotations

import io
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from captioner.errors import UserError

ImageSource: TypeAlias = "str | PathLike[str] | bytes | Image.Image | npt.NDArray[Any]"

SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".avif",
        ".heic",
        ".heif",
        ".ppm",
        ".pgm",
        ".jp2",
    ]
)
MAX_PIXELS = 200_000_000  # more than any camera makes; 600 MB once decoded
MAX_FILE_BYTES = 500_000_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UPRIGHT = {  # what turns a picture upright, by its EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(UserError):
    """A picture cannot be read; the message says which and why."""


def load_image(source: ImageSource, smallest: int | None = None) -> Image.Image:
    """Read a picture as it is meant to be seen: upright, RGB, on white where it is transparent.

    `source` is a path, the bytes of a file, a PIL image, or an array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4),
    uint8 in 0 to 255 or float in 0 to 1. Of an animation, the first frame counts.
    A JPEG file may come at a half, a quarter or an eighth of its size where no side falls below `smallest` pixels:
    its decoder leaves out the fine detail that shrinking would, and a photo of 12 megapixels takes a third of the time.
    Raises ImageError when it cannot be read, is damaged or is larger than MAX_PIXELS.
    """
    if isinstance(source, Image.Image):
        with _errors_of_pillow("the picture"):  # it may still have to be read from its file
            return _upright_rgb(source, "the picture")
    if isinstance(source, np.ndarray):
        return _upright_rgb(_from_array(source), "the array")
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the picture", len(source), smallest)
    path = Path(source)
    name = _one_line(path)
    try:
        status = path.stat()
        # A named pipe or a device would make us wait for ever, or read without end.
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name}: is a folder, not a picture")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name}: is not a regular file")
        with path.open("rb") as file:
            return _decode(file, name, status.st_size, smallest)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name}: cannot be opened ({reason})") from error


def _decode(file: Any, name: str, size: int, smallest: int | None) -> Image.Image:
    if size == 0:
        raise ImageError(f"{name}: the file is empty")
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{name}: {size / 1e6:.0f} MB is more than the limit of {MAX_FILE_BYTES / 1e6:.0f} MB")
    _prepare_pillow()
    with _errors_of_pillow(name), Image.open(file) as image:
        _check_pixels(image, name)
        if smallest is not None:
            image.draft(None, (smallest, smallest))  # does nothing for other formats than JPEG
        return _upright_rgb(image, name)


@contextmanager
def _errors_of_pillow(name: str) -> Iterator[None]:
    """Whatever Pillow raises, as an ImageError of one line."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        heic = name.lower().endswith((".heic", ".heif")) and ".heic" not in Image.registered_extensions()
        hint = ' (HEIC needs: pip install "captioner[heic]")' if heic else ""
        raise ImageError(f"{name}: not a picture, or a format that Pillow cannot read{hint}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: has more than {MAX_PIXELS / 1e6:.0f} million pixels") from error
    # Pillow's decoders raise nearly anything on damaged files: struct.error, SyntaxError, IndexError, ...
    except Exception as error:
        raise ImageError(f"{name}: damaged picture: {_one_line(error) or type(error).__name__}") from error


def _one_line(text: object) -> str:
    """Control characters, which names of files and messages about damaged ones may hold, as Python writes them."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], str(text))


def _check_pixels(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{name}: {image.width} x {image.height} is more than {MAX_PIXELS / 1e6:.0f} million pixels")


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    if not image.width or not image.height:
        raise ImageError(f"{name}: has no pixels")
    _check_pixels(image, name)
    image.load()
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata, of a picture that is whole
        turn = None
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow clips 16-bit grey to 8 bits instead of scaling it.
        image = Image.fromarray((np.asarray(image).clip(0, 65_535) // 257).astype(np.uint8))
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image, np.float32))
        # Float pictures hold 0 to 1, or 0 to 255; no picture of the latter kind stays below 1.
        values = values * 255.0 if values.max(initial=0.0) <= 1.0 else values
        image = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(flat, rgba)
    return image.convert("RGB")


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"an array of shape {array.shape} is no picture: give (H, W), (H, W, 3) or (H, W, 4)")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0.0 and array.max() <= 1.0):
            raise ImageError("a float array must hold values from 0 to 1; give uint8 for 0 to 255")
        array = (array * 255.0).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype} is no picture: give uint8 (0 to 255) or float (0 to 1)")
    return Image.fromarray(np.ascontiguousarray(array))


@cache
def _prepare_pillow() -> None:
    """Set Pillow up, once: these settings hold for the whole process, which threads share."""
    # Pillow refuses pictures of twice this number of pixels, and would do so below our own limit.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 2)
    # It warns of large pictures and odd metadata. Not `warnings.catch_warnings`, which is not safe in threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        from pillow_heif import register_heif_opener  # pip install "captioner[heic]"
    except ImportError:
        return
    register_heif_opener()


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input; part of the checkpoint, the same everywhere.

    The whole picture is squeezed to a square, never cropped: what stands at the edge of a photo may matter for
    its caption, and the pictures that the shipped model learned from were squeezed too.
    """

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of ImageNet, for values from 0 to 1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def pixels(self, image: Image.Image) -> Tensor:
        """Squeeze an RGB picture to (3, S, S), uint8, 0 to 255."""
        size = (self.size, self.size)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)  # Pillow widens the filter when it shrinks
        return torch.from_numpy(np.array(image, np.uint8)).permute(2, 0, 1)  # in memory (S, S, 3), as Pillow has it

    @staticmethod
    def batch(pixels: Sequence[Tensor]) -> Tensor:
        """Pictures (3, S, S) of `pixels` to (B, 3, S, S), channels last, without reordering them in memory."""
        return torch.stack([picture.permute(1, 2, 0) for picture in pixels]).permute(0, 3, 1, 2)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 in 0 to 255 -> (B, 3, S, S) float32, channels last, about zero mean, unit variance."""
        # One value a pixel and channel, not one a channel: torch is ten times as fast with rows of one length.
        height_width = pixels.shape[2:]
        mean, std = (
            (torch.tensor(values, device=pixels.device) * 255.0).expand(*height_width, 3).contiguous().permute(2, 0, 1)
            for values in (self.mean, self.std)
        )
        return pixels.contiguous(memory_format=torch.channels_last).float().sub_(mean).div_(std)
