"""Decode any image with PIL: the slow path, for all that is not a plain JPEG or PPM."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.loaders.decode.bad_image import MAX_PIXELS, BadImage, check_pixel_count

if TYPE_CHECKING:
    from PIL import Image

# Only decoders that run in this process and execute nothing: PIL would start Ghostscript for EPS.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")


def decode_with_pil(data: bytes) -> np.ndarray:
    """The image as uint8 [height, width, 3] RGB in memory of its own; BadImage for bad bytes."""
    if not data:
        raise BadImage("the file is empty")
    pil, formats = _pil()
    try:
        with pil.open(io.BytesIO(data), formats=formats) as image:
            check_pixel_count(image.height, image.width)
            return to_rgb(image)
    except BadImage:
        raise
    except pil.DecompressionBombError:
        raise BadImage(f"it has more than the {MAX_PIXELS} pixels that are allowed") from None
    except Exception as error:  # PIL's plugins raise whatever they stumble over
        raise BadImage(_reason(error)) from None


def to_rgb(image: Image.Image) -> np.ndarray:
    sixteen_bits = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    if sixteen_bits:
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if name == "UnidentifiedImageError":
        return "not an image of a known type"
    return " ".join(str(error).split()) or name


@functools.cache
def _pil() -> tuple[Any, tuple[str, ...]]:
    from PIL import Image

    Image.init()
    return Image, tuple(name for name in _FORMATS if name in Image.OPEN)
