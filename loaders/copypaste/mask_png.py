"""Encode masks as greyscale PNGs of 4 or 8 bits, and decode them several times faster than PIL.

Rows are written without PNG filters: masks with few grey levels gain nothing from them.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import MOST_PIXELS, BadImage

MAGIC = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_HEADER = struct.Struct(">IIBBBBB")  # IHDR: width, height, bit depth, colour type, 3 methods
_GREYSCALE = {4: (4, 0, 0, 0, 0), 8: (8, 0, 0, 0, 0)}
GREY_STEP = 17  # between the 16 levels of 4 bits: 0, 17, ..., 255
_COMPRESSION = 6  # zlib level: higher ones take four times as long to save 2 %
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM")
_COLOURED = {
    "P": "a palette",
    "LA": "2 channels",
    "RGB": "3 channels",
    "YCbCr": "3 channels",
    "RGBA": "4 channels",
    "CMYK": "4 channels",
}


def encode_mask(plane: np.ndarray, bits: int = 8) -> bytes:
    """Encode a uint8 [height, width] plane; 4 bits round to the nearest of 16 levels."""
    height, width = plane.shape
    rows = np.zeros((height, 1 + _row_bytes(width, bits)), np.uint8)
    if bits == 4:
        levels = _LEVELS[plane]
        rows[:, 1:] = levels[:, ::2] << 4
        rows[:, 1 : 1 + width // 2] |= levels[:, 1::2]
    else:
        rows[:, 1:] = plane
    head = _HEADER.pack(width, height, *_GREYSCALE[bits])
    packed = zlib.compress(rows.data, _COMPRESSION)
    return b"".join([MAGIC, *_chunk(b"IHDR", head), *_chunk(b"IDAT", packed), *_chunk(b"IEND")])


def decode_mask(data: bytes, where: Callable[[], str]) -> np.ndarray:
    """Decode any greyscale image to uint8 [height, width]; BadImage if that fails.

    An image with colours is not a mask: it raises a MillError, which names it by `where()`.
    """
    plane = _decode_png(data)
    return _decode_by_pil(data, where) if plane is None else plane


_LEVELS = np.rint(np.arange(256) / GREY_STEP).astype(np.uint8)


def _row_bytes(width: int, bits: int) -> int:
    return (width * bits + 7) // 8


def _chunk(kind: bytes, content: bytes = b"") -> tuple[bytes, bytes, bytes]:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return _CHUNK.pack(len(content), kind), content, struct.pack(">I", checksum)


def _decode_png(data: bytes) -> np.ndarray | None:
    """Decode a greyscale PNG of 4 or 8 bits; None for other images, BadImage if damaged."""
    start = len(MAGIC) + _CHUNK.size
    if not data.startswith(MAGIC) or len(data) < start + _HEADER.size:
        return None
    width, height, *kind = _HEADER.unpack_from(data, start)
    bits = kind[0]
    size = height * (1 + _row_bytes(width, bits))
    if tuple(kind) != _GREYSCALE.get(bits) or not 0 < width * height <= MOST_PIXELS:
        return None
    unpack = zlib.decompressobj()
    try:
        content = unpack.decompress(_image_data(data), size + 1)
    except (zlib.error, struct.error) as error:
        raise BadImage(f"its mask cannot be decoded: {error}") from None
    if len(content) != size or not unpack.eof:
        raise BadImage("its mask cannot be decoded: its number of rows differs from its header")
    rows = np.frombuffer(content, np.uint8).reshape(height, -1)
    filters, packed = rows[:, 0], rows[:, 1:]
    if filters.any():
        if filters.max() > 4:
            raise BadImage("its mask cannot be decoded: unknown row filter")
        from patchmill.loaders.copypaste.png_filters import undo_filters

        packed = undo_filters(rows)
    return np.ascontiguousarray(_unpack_nibbles(packed)[:, :width] if bits == 4 else packed)


def _unpack_nibbles(packed: np.ndarray) -> np.ndarray:
    """Unpack bytes of two 4-bit pixels, the left one in the upper bits, to 8-bit pixels."""
    pairs = packed.astype("<u2")
    pairs |= pairs << 12
    pairs >>= 4
    pairs &= 0x0F0F
    pairs *= GREY_STEP
    return pairs.view(np.uint8)


def _image_data(data: bytes) -> bytes:
    """The concatenated IDAT chunks; struct.error if a chunk is damaged or IEND is missing."""
    parts, at, kind = [], len(MAGIC), b""
    while kind != b"IEND":
        size, kind = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        content = data[at : at + size]
        (checksum,) = struct.unpack_from(">I", data, at + size)
        if zlib.crc32(content, zlib.crc32(kind)) != checksum:
            raise struct.error("a checksum differs")
        if kind == b"IDAT":
            parts.append(content)
        at += size + 4
    return b"".join(parts)


def _decode_by_pil(data: bytes, where: Callable[[], str]) -> np.ndarray:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise BadImage(f"its mask has {image.width} x {image.height} pixels: too many")
        if channels := _COLOURED.get(image.mode):
            raise MillError(
                f"{where()} has {channels}, but a mask is grey: store it with one channel, "
                "0 for background and 255 for foreground"
            )
        if image.mode.startswith("I"):
            return (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.array(image.convert("L"))
    except (MillError, BadImage):
        raise
    except Exception as error:  # PIL's plugins raise almost anything for damaged files
        raise BadImage(f"its mask cannot be decoded: {error}") from None
