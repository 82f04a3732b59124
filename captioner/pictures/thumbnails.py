"""Small copies of pictures inside a page that needs no other file."""

from __future__ import annotations

import base64
import io

from PIL import Image

from captioner.errors import ImageError
from captioner.pictures.load import ImageSource, load_image

SIDE = 180  # pixels; a gallery of 7,000 is then some 55 MB


def thumbnail(image: ImageSource) -> str | None:
    """A picture as a `data:` URI of a JPEG whose longer side is at most SIDE; None when it cannot be read."""
    try:
        small = load_image(image)
    except ImageError:
        return None
    small.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=60)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
