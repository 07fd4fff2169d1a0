"""Masks as PNGs: grey, of 4 or 8 bits, and decoded several times faster than by PIL.

What is written here has no row filters, which a mask of few levels does not gain from.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import MAX_PIXELS, BadImage

_MAGIC = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_HEAD = struct.Struct(">IIBBBBB")  # width, height, depth, colour type, and three methods
_GREY = {4: (4, 0, 0, 0, 0), 8: (8, 0, 0, 0, 0)}
_STEP = 17  # between the 16 levels of 4 bits: 0 and 255 are two of them
_LEVEL = 6  # of zlib: a higher one takes four times as long for 2 % less
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
    """The PNG of a uint8 [height, width] plane; of 4 bits, with the nearest of 16 levels."""
    height, width = plane.shape
    rows = np.zeros((height, 1 + _row_bytes(width, bits)), np.uint8)
    if bits == 4:
        levels = _LEVELS[plane]
        rows[:, 1:] = levels[:, ::2] << 4
        rows[:, 1 : 1 + width // 2] |= levels[:, 1::2]
    else:
        rows[:, 1:] = plane
    head = _HEAD.pack(width, height, *_GREY[bits])
    packed = zlib.compress(rows.data, _LEVEL)
    return b"".join([_MAGIC, *_chunk(b"IHDR", head), *_chunk(b"IDAT", packed), *_chunk(b"IEND")])


def decode_mask(data: bytes, where: Callable[[], str]) -> np.ndarray:
    """uint8 [height, width] of a grey image of any kind; BadImage where it is none.

    One with colours is a MillError that begins with `where()`: it is something else than a mask.
    """
    found = _fast(data)
    return _slowly(data, where) if found is None else found


_LEVELS = np.rint(np.arange(256) / _STEP).astype(np.uint8)


def _row_bytes(width: int, bits: int) -> int:
    return (width * bits + 7) // 8


def _chunk(kind: bytes, content: bytes = b"") -> tuple[bytes, bytes, bytes]:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return _CHUNK.pack(len(content), kind), content, struct.pack(">I", checksum)


def _fast(data: bytes) -> np.ndarray | None:
    """None where it is no plain grey PNG of 4 or 8 bits; BadImage where such a one is damaged."""
    start = len(_MAGIC) + _CHUNK.size
    if not data.startswith(_MAGIC) or len(data) < start + _HEAD.size:
        return None
    width, height, *kind = _HEAD.unpack_from(data, start)
    bits = kind[0]
    size = height * (1 + _row_bytes(width, bits))
    if tuple(kind) != _GREY.get(bits) or not 0 < width * height <= MAX_PIXELS:
        return None
    unpack = zlib.decompressobj()
    try:
        content = unpack.decompress(_content(data), size + 1)
    except (zlib.error, struct.error) as error:
        raise BadImage(f"its mask cannot be decoded: {error}") from None
    if len(content) != size or not unpack.eof:
        raise BadImage("its mask cannot be decoded: it has more rows or fewer than it says")
    rows = np.frombuffer(content, np.uint8).reshape(height, -1)
    filters, packed = rows[:, 0], rows[:, 1:]
    if filters.any():
        if filters.max() > 4:
            raise BadImage("its mask cannot be decoded: there is no such filter")
        from patchmill.loaders.copypaste.png_filters import undo_filters

        packed = undo_filters(rows)
    return np.ascontiguousarray(_pixels(packed)[:, :width] if bits == 4 else packed)


def _pixels(packed: np.ndarray) -> np.ndarray:
    """Of bytes with two pixels each, of which the upper bits are the left one."""
    pairs = packed.astype("<u2")
    pairs |= pairs << 12
    pairs >>= 4
    pairs &= 0x0F0F
    pairs *= _STEP
    return pairs.view(np.uint8)


def _content(data: bytes) -> bytes:
    """The compressed rows; a struct.error where a chunk is damaged, or the last one missing."""
    parts, at, kind = [], len(_MAGIC), b""
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


def _slowly(data: bytes, where: Callable[[], str]) -> np.ndarray:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise BadImage(f"its mask has {image.width} x {image.height} pixels: too many")
        if channels := _COLOURED.get(image.mode):
            raise MillError(
                f"{where()} has {channels}, and a mask is grey: store it with one channel, "
                "0 for background and 255 for foreground"
            )
        if image.mode.startswith("I"):
            return (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.array(image.convert("L"))
    except (MillError, BadImage):
        raise
    except Exception as error:  # PIL's plugins raise almost anything for damaged files
        raise BadImage(f"its mask cannot be decoded: {error}") from None
