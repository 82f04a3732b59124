"""From a file, bytes, an image or an array to an upright RGB picture, and to a thumbnail of it."""

from __future__ import annotations

import base64
import io
import re
import stat
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from os import PathLike
from pathlib import Path, PurePath
from typing import IO, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from PIL.ExifTags import Base as Tag
from PIL.JpegImagePlugin import JpegImageFile

from captioner.errors import ImageError, one_line, to_install
from captioner.pictures.raw import RAW, check_pixels, open_raw


class TensorLike(Protocol):
    """A tensor of torch, which this room does not import."""

    def detach(self) -> Any: ...


ImageSource: TypeAlias = (
    "str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | npt.NDArray[Any] | TensorLike"
)

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"}
    | {".tif", ".tiff", ".avif", ".heic", ".heif", ".hif", ".ppm", ".pgm", ".jp2"}
)
NAMES = SUFFIXES | RAW  # of all pictures; of those in RAW, only with the extra [raw]
MAX_PIXELS = 200_000_000  # more than any camera makes
MAX_FILE_BYTES = 500_000_000

NO_ADDRESS = "is an address, and captioner fetches nothing: save the picture, and give its path"
# Pillow reads more formats than these. For PostScript it would start Ghostscript, whatever the file is called.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "PPM", "JPEG2000")
_PLUGINS = ("WebP", "Avif", "Jpeg2K")  # for what Pillow does not know from the beginning
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MAX_SCANS = 100  # of a JPEG; a progressive one has about 10, and each takes as long as decoding a picture
_HEIC = re.compile(rb"hei[cxms]|hev[cxms]|mif1|msf1")  # brands in the first bytes of such a file
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
LARGE = 30_000_000  # pixels; the decoders of some formats then take several GB
_LEVELS = [2**bits - 1 for bits in range(9, 16)]
_one_large = threading.Lock()
_STRIP = 1 << 20  # pixels
SIDE = 180  # of a thumbnail, in pixels
# The transpositions that turn pictures upright, for the EXIF orientations from 2 to 8.
_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
_UPRIGHT = {orientation: Image.Transpose[turn] for orientation, turn in enumerate(_TURNS, 2)}


def load_image(
    source: ImageSource, *, max_pixels: int = MAX_PIXELS, smallest: int | None = None, name: str = "the picture"
) -> Image.Image:
    """Read a picture as people see it: upright, RGB, on white where it is transparent.

    `source` is a path, the bytes of a file, a file that is open for reading bytes, a PIL image, an array of shape
    (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a tensor of shape (H, W), (1, H, W), (3, H, W) or (4, H, W). Arrays
    and tensors hold uint8 from 0 to 255 or float from 0 to 1. The first frame of an animation is read.
    With `smallest`, a JPEG file may be read at a half, a quarter or an eighth of its size, as long as no side falls
    below `smallest` pixels. That is much faster for large photos, which the network needs small.
    `name` stands in error messages for a source that has no path.
    Raises ImageError when the picture cannot be read, is damaged or has more than `max_pixels`.
    """
    if isinstance(source, Image.Image):
        with _errors_of_pillow(name):  # Pillow may not have read its file yet
            return _upright_rgb(source, name, max_pixels)
    if isinstance(source, np.ndarray):
        return _upright_rgb(_from_array(source), "the array", max_pixels)
    if hasattr(source, "read"):
        source, name = _content(source, name)
    elif hasattr(source, "detach"):
        return _upright_rgb(_from_array(_of_tensor(source)), "the tensor", max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), one_line(name), len(source), max_pixels, smallest)
    if not isinstance(source, str | PathLike):
        kinds = "a path, bytes, an open file, a PIL image, an array or a tensor"
        raise TypeError(f"{type(source).__name__} is no picture: give {kinds}")
    path = Path(source)
    name = one_line(path)
    try:
        if not path.exists():  # it may be there in the other Unicode form, as macOS writes names
            forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
            path = next(filter(Path.exists, forms), path)
        status = path.stat()
        # Reading a named pipe or a device could wait for ever or never end.
        if not stat.S_ISREG(status.st_mode):
            what = "a folder, not a picture" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ImageError(f"{name}: is {what}")
        with path.open("rb") as file:
            return _decode(file, name, status.st_size, max_pixels, smallest)
    except FileNotFoundError as error:
        address = f"{one_line(source)}: {NO_ADDRESS}"  # Path has made one slash of its two
        raise ImageError(address if is_address(source) else f"{name}: no such file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name}: cannot be opened ({reason})") from error


def picture_size(source: str | bytes, name: str) -> tuple[int, int]:
    """Width and height of a picture, given its path or bytes, without decoding it. Raises ImageError, naming it."""
    file, formats = io.BytesIO(source) if isinstance(source, bytes) else source, _prepare_pillow()
    with _errors_of_pillow(name), Image.open(file, "r", formats) as image:
        return image.width, image.height


def is_address(source: object) -> bool:
    """Whether a path is an address, such as https://example.com/a.jpg."""
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def _decode(file: Any, name: str, size: int, max_pixels: int, smallest: int | None) -> Image.Image:
    if size == 0:
        raise ImageError(f"{name}: the file is empty")
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{name}: {size / 1e6:.0f} MB is more than the limit of {MAX_FILE_BYTES / 1e6:.0f} MB")
    formats, start = _prepare_pillow(), file.read(64)
    file.seek(0)
    heic = start[4:8] == b"ftyp" and b"avif" not in start and bool(_HEIC.search(start))
    raw = PurePath(name).suffix.lower() in RAW  # Pillow would read many of them as TIFF, and find a tiny picture
    with _errors_of_pillow(name, heic and "HEIF" not in formats), ExitStack() as opened:
        image, orientation = (
            open_raw(file, name, max_pixels, smallest or 0) if raw else (Image.open(file, "r", formats), None)
        )
        opened.enter_context(image)
        if isinstance(image, JpegImageFile):
            _check_scans(image.fp, name)
        check_pixels(image.size, name, max_pixels)
        if smallest is not None:
            image.draft(None, (smallest, smallest))  # works for JPEG only
        # Threads take turns at large pictures: a few small files with very many pixels could fill the memory.
        with _one_large if image.width * image.height > LARGE else nullcontext():
            return _upright_rgb(image, name, max_pixels, orientation)


def _check_scans(file: Any, name: str) -> None:
    """Raise ImageError for a JPEG with so many tiny scans that decoding it would take minutes or hours."""
    place = file.tell()
    file.seek(0)
    # The bytes are counted first. They also occur elsewhere, as in the video after a phone's moving picture, so the
    # markers are read only where the count is high.
    if sum(block.count(b"\xff\xda") for block in iter(partial(file.read, 1 << 20), b"")) > _MAX_SCANS:
        file.seek(0)
        data, scans, position = file.read(), 0, 2
        while (marker := _MARKER.search(data, position)) and marker[0] != b"\xff\xd9":  # end of image
            scans += marker[0] == b"\xff\xda"
            if scans > _MAX_SCANS:
                raise ImageError(f"{name}: has more than {_MAX_SCANS} scans, which no picture needs")
            position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")  # skip its segment
    file.seek(place)


@contextmanager
def _errors_of_pillow(name: str, heic: bool = False) -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageError with a message of one line; `heic` if HEIC cannot be read."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: has more than {MAX_PIXELS / 1e6:.0f} million pixels") from error
    # On damaged files Pillow's decoders raise nearly anything: struct.error, SyntaxError, IndexError, ...
    except Exception as error:
        if heic:
            reason = f"is HEIC, which needs: {to_install('heic')}"
        elif isinstance(error, UnidentifiedImageError):
            reason = "not a picture, or a format that Pillow cannot read"
        else:
            reason = f"damaged picture: {one_line(error) or type(error).__name__}"
        raise ImageError(f"{name}: {reason}") from error


def _upright_rgb(image: Image.Image, name: str, max_pixels: int, orientation: int | None = None) -> Image.Image:
    if not image.width or not image.height:
        raise ImageError(f"{name}: has no pixels")
    check_pixels(image.size, name, max_pixels)
    image.load()
    highest, inverted = _levels(image)
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # Pillow scales the pixels of a 16-bit PNG, but not this colour
        image = image.copy()
        image.info["transparency"] = tuple(level >> 8 for level in clear)
    turn = None
    with suppress(Exception):  # where the metadata is damaged, the picture may still be whole
        turn = _UPRIGHT.get(orientation or image.getexif().get(Tag.Orientation, 1))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey to 8 bits instead of scaling it.
        return _by_strips(image, partial(_deep_grey, highest=highest, inverted=inverted, clear=clear))
    if image.mode == "F":
        # Float pictures hold values from 0 to 1 or from 0 to 255. In the second kind some value is above 1.
        highest = max(np.nan_to_num(np.asarray(strip)).max(initial=0.0) for strip in _strips(image))
        scale = np.float32(255.0 if highest <= 1.0 else 1.0)
        return _by_strips(image, lambda strip: _grey((np.nan_to_num(np.asarray(strip)) * scale).clip(0, 255).round()))
    if image.has_transparency_data:
        return _by_strips(image, _on_white)
    return image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """Cut the picture into strips of a few rows."""
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a picture to RGB strip by strip, because intermediate results take several times its memory."""
    result, top = Image.new("RGB", image.size), 0
    for strip in _strips(image):
        result.paste(convert(strip), (0, top))
        top += strip.height
    return result


def _levels(image: Image.Image) -> tuple[int, bool]:
    """The highest level of a picture with more than 8 bits, and whether it stands for black."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits, most, kind = (
        tags.get(tag, (default,))[0]
        for tag, default in ((Tag.BitsPerSample, 16), (Tag.MaxSampleValue, 0), (Tag.SampleFormat, 1))
    )
    highest = 2 ** (bits - (kind == 2)) - 1  # kind 2 has a sign
    if most in _LEVELS:  # 10 or 12 bits in numbers of 16 bits
        highest = most
    return min(highest, 65_535), tags.get(Tag.PhotometricInterpretation) == 0


def _deep_grey(strip: Image.Image, highest: int, inverted: bool, clear: int | None) -> Image.Image:
    levels = np.asarray(strip).astype(np.int64)
    grey = levels.clip(0, highest) * 255 // highest
    grey = 255 - grey if inverted else grey
    return _grey(grey if clear is None else np.where(levels == clear, 255, grey))


def _grey(values: npt.NDArray[Any]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _content(file: Any, name: str) -> tuple[bytes, str]:
    """What is left to read in an open file, as far as a picture may be large, and what to call the file."""
    name = one_line(file.name) if isinstance(getattr(file, "name", None), str) else name
    try:
        content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: it is closed, or was opened as text
        raise ImageError(f"{name}: cannot be read ({one_line(error)})") from error
    if not isinstance(content, bytes):
        raise ImageError(f'{name}: the file is open as text: open it with mode "rb"')
    return content, name


def _of_tensor(tensor: Any) -> npt.NDArray[Any]:
    """A tensor (H, W) or (C, H, W) as an array (H, W) or (H, W, C)."""
    tensor = tensor.detach().cpu()
    array: npt.NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # there is no bfloat16
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    elif array.ndim != 2:
        shapes = "(H, W), (1, H, W), (3, H, W) or (4, H, W)"
        raise ImageError(f"a tensor of shape {array.shape} is no picture: give {shapes}")
    return array


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
def _prepare_pillow() -> tuple[str, ...]:
    """Set Pillow up for the whole process, once, and return the formats that it may read."""
    # Pillow refuses pictures with twice this number of pixels. Our own limit must come first.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 2)
    # It warns about large pictures and odd metadata. `warnings.catch_warnings` is not safe in threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Not with `Image.init`, which imports forty plugins for formats that are not read here.
    Image.preinit()
    for plugin in _PLUGINS:
        import_module(f"PIL.{plugin}ImagePlugin")
    if find_spec("pi_heif"):  # there are machines that it is not made for
        Image.register_open("HEIF", _heif, lambda start: start[4:8] == b"ftyp" and bool(_HEIC.match(start, 8)))
    for order in (TiffImagePlugin.II, TiffImagePlugin.MM):  # kinds of grey that Pillow could read, but does not
        for white_or_black in (0, 1):
            TiffImagePlugin.OPEN_INFO.setdefault((order, white_or_black, (1,), 1, (12,), ()), ("I;16", "I;12"))
    TiffImagePlugin.OPEN_INFO.setdefault((TiffImagePlugin.MM, 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))
    return tuple(format for format in _FORMATS if format in Image.OPEN)


def _heif(file: Any, name: str | bytes) -> Any:
    """The first picture in HEIC. pi-heif, which takes long to import, opens the others without this."""
    from pi_heif import register_heif_opener

    register_heif_opener()
    return Image.OPEN["HEIF"][0](file, name)


def thumbnail(image: ImageSource, side: int = SIDE) -> str | None:
    """A `data:` URI of the picture as a JPEG whose longer side is at most `side`; None when it cannot be read."""
    try:
        small = load_image(image, smallest=side)
    except ImageError:
        return None
    small.thumbnail((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=60)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
