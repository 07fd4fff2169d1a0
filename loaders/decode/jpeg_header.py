"""Parse a JPEG's header: its marker segments and its frame (start of frame, SOFn)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF0 to SOF15
_ADOBE = 0xEE  # the APP14 marker, whose colour transform is 0 for images stored as RGB
_TAIL = 4096  # bytes at the end of a complete JPEG that hold its end marker
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length


class JpegFrame(NamedTuple):
    """A frame header."""

    height: int
    width: int
    components: int
    bits: int  # of a sample
    marker: int  # SOF0 (0xC0) for baseline, SOF2 (0xC2) for progressive, ...


def jpeg_frame(data: bytes) -> JpegFrame | None:
    """The frame header of a JPEG; None for bytes that have none, or one without pixels."""
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

    Excluded are JPEGs of four components, those stored as RGB, and those without an end marker.
    """
    if data.rfind(b"\xff\xd9", max(len(data) - _TAIL, 0)) < 0:
        return None
    for marker, at in jpeg_segments(data):
        adobe = marker == _ADOBE and data[at : at + 7] == b"\x00\x0eAdobe"
        if adobe and data[at + 13 : at + 14] == b"\0":
            return None
    frame = jpeg_frame(data)
    return frame[:2] if frame and frame.components in (1, 3) else None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset of the segment's length field) of a JPEG's segments, the frame's the last."""
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
