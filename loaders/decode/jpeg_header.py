"""Parse a JPEG's header: its marker segments and its frame (start of frame, SOFn).

A header may claim any size. `lies_about_size` detects sizes that the data cannot hold, so that a
file of a few hundred bytes does not allocate gigabytes. An image is coded in blocks of 8 x 8
samples, each of which takes a Huffman code of at least one bit for its mean and, unless the JPEG is
progressive, another one at its end. Only the component with the fewest blocks counts, so that a
JPEG with one complete scan is never refused. Arithmetic coding needs almost no bits for a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF0 to SOF15
_ADOBE = 0xEE  # the APP14 marker, whose colour transform is 0 for images stored as RGB
_TAIL = 4096  # bytes at the end of a complete JPEG that hold its end marker
_BLOCK = 8  # samples along a side
_SEQUENTIAL, _ARITHMETIC = (0xC0, 0xC1), 0xC9  # frame markers; arithmetic ones start at 0xC9
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length


class JpegFrame(NamedTuple):
    """A frame header."""

    height: int
    width: int
    components: int
    bits: int  # of a sample
    marker: int  # SOF0 (0xC0) for baseline, SOF2 (0xC2) for progressive, ...


def jpeg_frame(data: bytes) -> JpegFrame | None:
    """The frame header of a JPEG; None if there is none, or its size is zero."""
    for marker, at in jpeg_segments(data):
        if marker in FRAME_MARKERS:
            frame = parse_frame(data, marker, at)
            return frame if frame.height and frame.width else None
    return None


def parse_frame(data: bytes, marker: int, at: int) -> JpegFrame:
    """The frame header in a segment of `jpeg_segments`; height or width may be 0."""
    height, width = data[at + 3] << 8 | data[at + 4], data[at + 5] << 8 | data[at + 6]
    return JpegFrame(height, width, data[at + 7], data[at + 2], marker)


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that all decoders decode alike; None for anything else.

    This excludes JPEGs with four components, stored as RGB, without an end marker, or with too few
    bytes for their size.
    """
    if data.rfind(b"\xff\xd9", max(len(data) - _TAIL, 0)) < 0:
        return None
    for marker, at in jpeg_segments(data):
        adobe = marker == _ADOBE and data[at : at + 7] == b"\x00\x0eAdobe"
        if adobe and data[at + 13 : at + 14] == b"\0":
            return None
    frame = jpeg_frame(data)
    if frame is None or frame.components not in (1, 3) or lies_about_size(data, frame):
        return None
    return frame[:2]


def lies_about_size(data: bytes, frame: JpegFrame) -> bool:
    """True if a JPEG's bytes are too few for the size in its frame header."""
    height, width, components, _, marker = frame
    block_bits, bits = (2 if marker in _SEQUENTIAL else 1), 8 * len(data)
    if block_bits * _blocks(height) * _blocks(width) <= bits or marker >= _ARITHMETIC:
        return False
    if components <= 1:  # sampling factors have no meaning
        return components == 1
    at = next(at for marker, at in jpeg_segments(data) if marker in FRAME_MARKERS)
    factors = data[at + 9 : at + 9 + 3 * components : 3]
    if len(factors) < components:
        return False  # cannot be decoded at all
    across, down = max(factor >> 4 for factor in factors), max(factor & 15 for factor in factors)
    fewest = min(
        _blocks(-(-width * (factor >> 4) // max(across, 1)))
        * _blocks(-(-height * (factor & 15) // max(down, 1)))
        for factor in factors
    )
    return block_bits * fewest > bits


def _blocks(samples: int) -> int:
    return -(-samples // _BLOCK)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and offset of the length field of a JPEG's segments, up to the frame's."""
    if data[:2] != b"\xff\xd8":
        return
    at, end = 2, len(data) - 9
    while at < end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _BARE_MARKERS:
            at += 2
        else:
            yield marker, at + 2
            if marker in FRAME_MARKERS:
                return
            at += 2 + (data[at + 2] << 8 | data[at + 3])
