"""Decode any image with PIL: the slow path, for everything except plain JPEGs and PPMs."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.loaders.decode.bad_image import MAX_PIXELS, MOST_PIXELS, BadImage, check_pixel_count

if TYPE_CHECKING:
    from PIL import Image

# Only decoders that run in this process and execute nothing: PIL would start Ghostscript for EPS.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_BAND_PIXELS = 1 << 22  # copied at a time
_PIXEL_BYTES, _OTHER_BYTES = 8, 1 << 24  # memory that PIL needs, including two copies of an image


def decode_with_pil(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode to uint8 [height, width, 3] RGB in newly allocated memory; BadImage for bad bytes.

    MemoryError if there is no memory for an image of its size, which PIL's plugins report in many
    ways.
    """
    if not data:
        raise BadImage("the file is empty")
    pil, formats = _pil()
    pixels = 0
    try:
        with pil.open(io.BytesIO(data), formats=formats) as image:
            check_pixel_count(image.height, image.width, max_pixels)
            pixels = image.height * image.width
            return to_rgb(image)
    except BadImage:
        raise
    except pil.DecompressionBombError:
        most = f"the {MOST_PIXELS} pixels that max_pixels may allow"
        raise BadImage(f"it has more than {most}") from None
    except Exception as error:  # PIL's plugins raise almost anything for damaged files
        np.empty(_PIXEL_BYTES * pixels + _OTHER_BYTES, np.uint8)
        reason = _reason(error)
    raise BadImage(reason)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert to uint8 [height, width, 3], keeping the upper 8 of 16 bits.

    BadImage if the value range is ambiguous.
    """
    sixteen_bits = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    if sixteen_bits:
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("F", "I"):
        _check_range(image)
    image.load()
    return _copied(image if image.mode == "RGB" else image.convert("RGB"))


def _copied(image: Image.Image) -> np.ndarray:
    """The pixels of an RGB image, copied in bands: PIL would copy a large one twice."""
    width, height = image.size
    pixels, lines = np.empty((height, width, 3), np.uint8), max(_BAND_PIXELS // max(width, 1), 1)
    for top in range(0, height, lines):
        bottom = min(top + lines, height)
        band = image if height <= lines else image.crop((0, top, width, bottom))
        pixels[top:bottom] = np.asarray(band)
    return pixels


def _check_range(image: Image.Image) -> None:
    """Raise BadImage for 32-bit pixels beyond 0..255, which `convert` clips, or floats up to 1."""
    pixels = np.asarray(image)
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 255 or (image.mode == "F" and 0 < high <= 1):
        raise BadImage(
            f"its 32-bit pixels range from {low:g} to {high:g}, but are read as 0 to 255: save it "
            "with 8 or 16 bits"
        )


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if isinstance(error, MemoryError):
        return "it requests more memory than an image of its size needs"
    if name == "UnidentifiedImageError":
        return "not an image of a known type"
    return " ".join(str(error).split()) or name


@functools.cache
def _pil() -> tuple[Any, tuple[str, ...]]:
    from PIL import Image

    Image.init()
    return Image, tuple(name for name in _FORMATS if name in Image.OPEN)
