"""Decode encoded images to RGB pixels: PIL's pixels, at libjpeg-turbo's speed.

Plain JPEGs (grey or three components, baseline or progressive) go through simplejpeg with the exact
inverse DCT and smooth chroma upsampling, which matches PIL's `convert("RGB")` bit for bit; a PPM
with a one-line header is copied. Everything else, and every JPEG that causes even a warning in
libjpeg-turbo, goes through PIL itself. The file type is detected from the bytes, and EXIF rotation
is not applied. The one deviation: PIL clips 16-bit greyscale to white, so here it is reduced to its
high byte, as PIL itself does with 16-bit colour.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import simplejpeg

from patchmill.loaders.decode.bad_image import (
    MAX_PIXELS,
    MOST_PIXELS,
    BadImage,
    check_pixel_count,
)
from patchmill.loaders.decode.jpeg_header import jpeg_frame, lies_about_size
from patchmill.loaders.decode.with_pil import decode_with_pil

__all__ = ["MAX_PIXELS", "MOST_PIXELS", "BadImage", "Decoder", "decode"]

Allocate = Callable[[int], np.ndarray | None]  # from a number of bytes to memory, or None

_MAX_BUFFER = 64 << 20  # a Decoder keeps no more bytes than this between images

_PPM = re.compile(rb"P6 ([0-9]{1,9}) ([0-9]{1,9}) 255\n")  # in which sources return raw pixels


def decode(
    data: bytes, allocate: Allocate | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode to uint8 [height, width, 3] RGB, contiguous and writable.

    A plain JPEG or PPM is decoded into the memory that `allocate` returns for the size in its
    header, which may be false; anything else gets its own memory. Raises only BadImage for bad
    bytes and for images of more than `max_pixels`, at most MOST_PIXELS.
    """
    if layout := _ppm_layout(data):
        check_pixel_count(*layout[:2], max_pixels)
        return _copy_ppm(data, *layout, allocate)
    if frame := jpeg_frame(data):
        height, width = frame.height, frame.width
        check_pixel_count(height, width, max_pixels)
        if lies_about_size(data, frame):
            raise BadImage(f"its {len(data)} bytes are too few for {width} x {height} pixels")
        if frame.components in (1, 3):
            memory = allocate(height * width * 3) if allocate else None
            try:
                return simplejpeg.decode_jpeg(data, "RGB", buffer=memory, strict=True)
            except (ValueError, MemoryError):
                pass  # PIL can decode it, or reports the problem
    return decode_with_pil(data, max_pixels)


class Decoder:
    """Decodes into reused memory, which avoids page faults; use one per thread."""

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels
        self._memory, self._used = np.empty(1 << 20, np.uint8), 0

    def __call__(self, data: bytes) -> np.ndarray:
        """Decode an image, overwriting all earlier ones."""
        self.reuse()
        return self.one_more(data)

    def one_more(self, data: bytes) -> np.ndarray:
        """Decode an image, keeping those decoded since the last call of `reuse`."""
        return decode(data, self._allocate, self._max_pixels)

    def reuse(self) -> None:
        """Let the next images overwrite all earlier ones."""
        if len(self._memory) < self._used <= _MAX_BUFFER:
            self._memory = np.empty(min(2 * self._used, _MAX_BUFFER), np.uint8)
        self._used = 0

    def _allocate(self, size: int) -> np.ndarray | None:
        """Memory after the images in use; None if it is full, until `reuse` is called."""
        start, self._used = self._used, self._used + size
        if self._used <= len(self._memory):
            return self._memory[start : self._used]
        return None


def _ppm_layout(data: bytes) -> tuple[int, int, int] | None:
    """Height, width and pixel offset of an 8-bit PPM; None for any other bytes."""
    header = _PPM.match(data) if data[:2] == b"P6" else None
    if header is None:
        return None
    width, height, start = int(header[1]), int(header[2]), header.end()
    complete = height and width and len(data) - start == height * width * 3
    return (height, width, start) if complete else None


def _copy_ppm(
    data: bytes, height: int, width: int, start: int, allocate: Allocate | None
) -> np.ndarray:
    size = height * width * 3
    memory = allocate(size) if allocate else None
    pixels = np.empty(size, np.uint8) if memory is None else memory
    pixels[:] = np.frombuffer(data, np.uint8, size, start)
    return pixels.reshape(height, width, 3)
