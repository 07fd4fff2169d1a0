"""PNGs that PIL does not write: interlaced, 16-bit, with invalid chunks or bombs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

# Of an interlaced PNG: first row and column, and the steps.
PASSES = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    pixels: np.ndarray,
    colour: int,
    interlaced: bool = False,
    before: bytes = b"",
    size: tuple[int, int] | None = None,
) -> bytes:
    """Encode pixels [height, width, channels] of 8 or 16 bits; `before`: chunks before the data."""
    height, width = size or pixels.shape[:2]
    depth = 8 * pixels.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    images = (
        [pixels[y::down, x::across] for y, x, down, across in PASSES] if interlaced else [pixels]
    )
    rows = b"".join(
        b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes()
        for image in images
        if image.size
        for row in image
    )
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + data + chunk(b"IEND", b"")


def pictures() -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(3)
    for colour, channels in ((GREY, 1), (RGB, 3), (GREY_ALPHA, 2), (RGBA, 4)):
        for dtype in (np.uint8, np.uint16):
            most = int(np.iinfo(dtype).max)
            pixels = rng.integers(0, most, (19, 23, channels), dtype)
            for interlaced in (False, True):
                name = f"png colour {colour}, {8 * pixels.itemsize} bits, interlaced {interlaced}"
                yield name, png(pixels, colour, interlaced)
    pixels = rng.integers(0, 255, (19, 23, 3), np.uint8)
    indices = rng.integers(0, 9, (19, 23, 1), np.uint8)
    colours = chunk(b"PLTE", rng.bytes(27))
    yield "png interlaced palette", png(indices, PALETTE, True, colours)
    yield "png without a palette", png(indices, PALETTE)
    yield "png palette too short", png(indices, PALETTE, False, chunk(b"PLTE", b"abc"))
    yield "png gamma", png(pixels, RGB, before=chunk(b"gAMA", struct.pack(">I", 100_000)))
    bomb = zlib.compress(bytes(80 << 20), 9)
    yield "png profile that is a bomb", png(pixels, RGB, before=chunk(b"iCCP", b"x\0\0" + bomb))
    yield "png text that is a bomb", png(pixels, RGB, before=chunk(b"zTXt", b"x\0\0" + bomb))
    whole = png(pixels, RGB)
    yield "png wrong sum of a chunk", whole.replace(b"IEND\xae", b"IEND\xaf")
    yield "png wrong sum of the header", whole[:29] + bytes(4) + whole[33:]
    yield "png wrong sum of the data", whole[:-16] + bytes(4) + whole[-12:]
    yield "png cut", whole[: len(whole) // 2]
    yield "png without an end", whole[:-12]
    yield "png unknown chunk", png(pixels, RGB, before=chunk(b"haHa", b"what"))
    yield "png unknown critical chunk", png(pixels, RGB, before=chunk(b"HAHA", b"what"))
    yield "png more rows than data", png(pixels, RGB, size=(40, 23))
    yield "png fewer rows than data", png(pixels, RGB, size=(9, 23))
    yield "png wider than its data", png(pixels, RGB, size=(19, 60))
    yield "png of nothing", png(pixels, RGB, size=(0, 0))
    yield "png too many pixels", png(pixels, RGB, size=(9000, 9000))
    yield "png far too many pixels", png(pixels, RGB, size=(60_000, 60_000))
    yield "png colour 5", png(pixels, 5)
