"""Decode encoded images to RGB pixels: PIL's pixels, at libjpeg-turbo's speed.

Plain JPEGs (grey or three components, baseline or progressive) go through simplejpeg with the exact
inverse DCT and smooth chroma upsampling, which gives the pixels of PIL's `convert("RGB")` bit for
bit; a PPM with a one-line header is copied. Everything else, and every JPEG about which
libjpeg-turbo so much as warns, goes through PIL itself. The file type is read from the bytes, and
EXIF rotation is not applied. The one deviation: PIL clips 16-bit greyscale to white, so here it
becomes its high byte, as PIL itself does with 16-bit colour.
"""

from __future__ import annotations

import re

import numpy as np
import simplejpeg

from patchmill.loaders.decode.bad_image import MAX_PIXELS, BadImage, check_pixel_count
from patchmill.loaders.decode.jpeg_header import jpeg_frame
from patchmill.loaders.decode.with_pil import decode_with_pil

__all__ = ["MAX_PIXELS", "BadImage", "Decoder", "buffer_size", "decode"]

_MAX_BUFFER = 64 << 20  # a Decoder keeps no more bytes than this between images

_PPM = re.compile(rb"P6 ([0-9]{1,9}) ([0-9]{1,9}) 255\n")  # as sources hand over raw pixels


def decode(data: bytes, buffer: np.ndarray | None = None) -> np.ndarray:
    """The image as uint8 [height, width, 3] RGB, contiguous and writable.

    A plain JPEG or PPM that fits is decoded into `buffer` (1-D uint8), and the result is a view of
    it; anything else gets memory of its own. Raises BadImage, and nothing else, for bad bytes.
    """
    if layout := _ppm_layout(data):
        return _copy_ppm(data, *layout, buffer)
    frame = jpeg_frame(data)
    if frame is not None:
        height, width = frame.height, frame.width
        check_pixel_count(height, width)
        if frame.components in (1, 3):
            if buffer is not None and buffer.size < height * width * 3:
                buffer = None
            try:
                return simplejpeg.decode_jpeg(data, "RGB", buffer=buffer, strict=True)
            except (ValueError, MemoryError):
                pass  # PIL knows better, or says what is wrong
    return decode_with_pil(data)


def buffer_size(data: bytes) -> int:
    """Bytes of buffer that `decode` can use for this image; 0 if it would use none."""
    if layout := _ppm_layout(data):
        return layout[0] * layout[1] * 3
    frame = jpeg_frame(data)
    return frame.height * frame.width * 3 if frame and frame.components in (1, 3) else 0


class Decoder:
    """Decode into a reused buffer, so that images cost no page faults; one for each thread.

    An image is valid until the next one is decoded.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(1 << 20, np.uint8)

    def __call__(self, data: bytes) -> np.ndarray:
        size = buffer_size(data)
        if self._buffer.size < size <= _MAX_BUFFER:
            self._buffer = np.empty(min(2 * size, _MAX_BUFFER), np.uint8)
        return decode(data, self._buffer)


def _ppm_layout(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, offset of the pixels) of an 8-bit PPM; None for any other bytes."""
    header = _PPM.match(data) if data[:2] == b"P6" else None
    if header is None:
        return None
    width, height, start = int(header[1]), int(header[2]), header.end()
    complete = height and width and len(data) - start == height * width * 3
    return (height, width, start) if complete else None


def _copy_ppm(
    data: bytes, height: int, width: int, start: int, buffer: np.ndarray | None
) -> np.ndarray:
    size = height * width * 3
    check_pixel_count(height, width)
    pixels = np.empty(size, np.uint8) if buffer is None or buffer.size < size else buffer[:size]
    pixels[:] = np.frombuffer(data, np.uint8, size, start)
    return pixels.reshape(height, width, 3)
