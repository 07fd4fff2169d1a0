"""Encoded bytes to pixels: as PIL's `Image.open(...).convert("RGB")`, at libjpeg-turbo's speed.

Plain JPEGs (grey or three components, baseline or progressive) go through simplejpeg with the exact
inverse DCT and smooth chroma upsampling, which gives PIL's pixels bit for bit; a PPM with a header
of one line is copied. Everything else, and every JPEG that libjpeg-turbo as much as warns about,
goes through PIL itself. The file type is read from the bytes, and EXIF rotation is not applied. The
one deviation: PIL clips 16-bit greyscale to white, so here it becomes its high byte, as PIL itself
does with 16-bit colour.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 178_956_970  # PIL's limit too: a larger image is an attack or an accident
_KEPT_BYTES = 64 << 20  # a Decoder keeps no more than this between images

# Only decoders that run in this process and execute nothing: PIL would start Ghostscript for EPS.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")

_PPM = re.compile(rb"P6 ([0-9]{1,9}) ([0-9]{1,9}) 255\n")  # as sources hand over raw pixels
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # start-of-frame markers
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length


class BadImage(Exception):
    """The bytes are not an image that can be decoded; the message says why."""


def decode(data: bytes, buffer: np.ndarray | None = None) -> np.ndarray:
    """The image as uint8 [height, width, 3] RGB, contiguous and writable.

    A plain JPEG or PPM that fits is decoded into `buffer` (1-D uint8), and the result is a view of
    it; anything else gets memory of its own. Raises BadImage, and nothing else, for bad bytes.
    """
    if pixels := _raw_pixels(data):
        return _copied(data, *pixels, buffer)
    frame = jpeg_frame(data)
    if frame is not None:
        height, width, components = frame
        _refuse_bombs(height, width)
        if components in (1, 3):
            if buffer is not None and buffer.size < height * width * 3:
                buffer = None
            try:
                return simplejpeg.decode_jpeg(data, "RGB", buffer=buffer, strict=True)
            except (ValueError, MemoryError):
                pass  # PIL knows better, or says what is wrong
    return _decode_slowly(data)


def needed(data: bytes) -> int:
    """How many bytes of buffer `decode` can use for this image; 0 if it would use none."""
    if pixels := _raw_pixels(data):
        return pixels[0] * pixels[1] * 3
    frame = jpeg_frame(data)
    return frame[0] * frame[1] * 3 if frame and frame[2] in (1, 3) else 0


class Decoder:
    """Decodes into memory that it keeps, so that images cost no page faults: one for each thread.

    An image is valid until the next one is decoded.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(1 << 20, np.uint8)

    def __call__(self, data: bytes) -> np.ndarray:
        size = needed(data)
        if self._buffer.size < size <= _KEPT_BYTES:
            self._buffer = np.empty(min(2 * size, _KEPT_BYTES), np.uint8)
        return decode(data, self._buffer)


def jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, components) as the JPEG's frame header says, or None if there is none."""
    for marker, at in jpeg_segments(data):
        if marker in FRAMES:
            height, width = data[at + 3] << 8 | data[at + 4], data[at + 5] << 8 | data[at + 6]
            return (height, width, data[at + 7]) if height and width else None
    return None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker of a JPEG's header, to the frame's, and where its segment's length stands."""
    if data[:2] != b"\xff\xd8":
        return
    at, end = 2, len(data) - 9
    while at < end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            yield marker, at + 2
            if marker in FRAMES:
                return
            at += 2 + (data[at + 2] << 8 | data[at + 3])


def _raw_pixels(data: bytes) -> tuple[int, int, int] | None:
    """Height and width of an 8-bit PPM, and where its pixels begin; None for any other bytes."""
    header = _PPM.match(data) if data[:2] == b"P6" else None
    if header is None:
        return None
    width, height, start = int(header[1]), int(header[2]), header.end()
    whole = height and width and len(data) - start == height * width * 3
    return (height, width, start) if whole else None


def _copied(
    data: bytes, height: int, width: int, start: int, buffer: np.ndarray | None
) -> np.ndarray:
    size = height * width * 3
    _refuse_bombs(height, width)
    pixels = np.empty(size, np.uint8) if buffer is None or buffer.size < size else buffer[:size]
    pixels[:] = np.frombuffer(data, np.uint8, size, start)
    return pixels.reshape(height, width, 3)


def _refuse_bombs(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadImage(f"{width} x {height} pixels are more than the {MAX_PIXELS} that are allowed")


# ------------------------------------------------------------------------------------ the slow path


def _decode_slowly(data: bytes) -> np.ndarray:
    if not data:
        raise BadImage("the file is empty")
    pil, formats = _pil()
    try:
        with pil.open(io.BytesIO(data), formats=formats) as image:
            _refuse_bombs(image.height, image.width)
            return _to_rgb(image)
    except BadImage:
        raise
    except pil.DecompressionBombError:
        raise BadImage(f"it has more than the {MAX_PIXELS} pixels that are allowed") from None
    except Exception as error:  # PIL's plugins raise whatever they stumble over
        raise BadImage(_reason(error)) from None


def _to_rgb(image: Image.Image) -> np.ndarray:
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
