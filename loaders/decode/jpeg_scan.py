"""Parse the headers of many JPEGs in one compiled call, without holding the GIL.

`jpeg_header` does the same for one JPEG in Python, and is easier to read; tests compare the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from patchmill.kernels.common.jit import jit

# OTHER: decoders may differ. PLAIN: all decode it alike, but nvImageCodec's parser must be asked if
# it can read the header. SURE: it can.
OTHER, PLAIN, SURE = 0, 1, 2

_TAIL = 4096  # bytes at the end of a complete JPEG that hold its end marker


@jit
def scan(
    memory: np.ndarray,
    spans: np.ndarray,
    slots: np.ndarray,
    requested: np.ndarray,
    known: np.ndarray,
    kinds: np.ndarray,
    hashes: np.ndarray,
    ids: np.ndarray,
    shapes: np.ndarray,
    max_pixels: int,
) -> int:
    """Parse the JPEGs in some slots of a batch; return how many of them are SURE.

    JPEG i is in `memory` (uint8) from spans[i, 0] to spans[i, 1]; a span that starts below 0 holds
    none. `kinds` (uint8) receives its kind. `hashes` (uint32) receives a hash of the bytes that
    nvImageCodec's parser reads, if it must be asked and gives the same answer for equal bytes, else
    0. Unless it is OTHER, `ids` and `shapes` of the batch receive the `requested` id, height and
    width. `known`, by id, holds hashes of headers that the parser can read; it may be short. No
    image of more than `max_pixels` is SURE.
    """
    sure = 0
    for i in range(len(slots)):
        start, stop, slot = spans[i, 0], spans[i, 1], slots[i]
        id = requested[slot]
        kinds[i], hashes[i] = OTHER, 0
        if start < 0 or not _ends(memory, start, stop):
            continue
        height, width, components, frame = _frame(memory, start, stop)
        if height == 0 or width == 0 or (components != 1 and components != 3):
            continue
        if _lies_about_size(memory, start, frame, stop):
            continue
        kinds[i] = PLAIN
        ids[slot], shapes[slot, 0], shapes[slot, 1] = id, height, width
        read, unusual = _read_by_parser(memory, start, stop)
        if read == 0 or memory[frame + 2] != 8 or height * width > max_pixels:
            continue
        if unusual:
            hashes[i] = hashed = _hash(memory, start, read)
            if not (0 <= id < len(known)) or known[id] != hashed:
                continue
        kinds[i] = SURE
        sure += 1
    return sure


@jit
def _ends(memory: np.ndarray, start: int, stop: int) -> bool:
    """True if an end marker is among the last bytes."""
    for at in range(stop - 2, max(stop - _TAIL, start) - 1, -1):
        if memory[at] == 0xFF and memory[at + 1] == 0xD9:
            return True
    return False


@jit
def _frame(memory: np.ndarray, start: int, stop: int) -> tuple[Any, Any, Any, Any]:
    """Height, width, components and offset of the frame header; zeros if none, or stored RGB."""
    if stop - start < 2 or memory[start] != 0xFF or memory[start + 1] != 0xD8:
        return 0, 0, 0, 0
    at, end = start + 2, stop - 9
    while at < end and memory[at] == 0xFF:
        marker = memory[at + 1]
        if marker == 0xFF:
            at += 1
        elif _is_bare(marker):
            at += 2
        else:
            field = at + 2
            if _is_frame(marker):
                height = np.int64(memory[field + 3]) << 8 | memory[field + 4]
                width = np.int64(memory[field + 5]) << 8 | memory[field + 6]
                return height, width, np.int64(memory[field + 7]), field
            if marker == 0xEE and _is_stored_rgb(memory, field, stop):
                return 0, 0, 0, 0
            at += 2 + (np.int64(memory[field]) << 8 | memory[field + 1])
    return 0, 0, 0, 0


@jit
def _lies_about_size(memory: np.ndarray, start: int, frame: int, stop: int) -> bool:
    """True if a JPEG's bytes are too few for the size in its header at `frame`."""
    marker, block_bits, bits = memory[frame - 1], 1, 8 * (stop - start)
    if marker == 0xC0 or marker == 0xC1:
        block_bits = 2
    height = np.int64(memory[frame + 3]) << 8 | memory[frame + 4]
    width = np.int64(memory[frame + 5]) << 8 | memory[frame + 6]
    fewest = _blocks(height) * _blocks(width)
    if block_bits * fewest <= bits or marker >= 0xC9:
        return False
    components = np.int64(memory[frame + 7])
    if components == 1:
        return True
    if frame + 7 + 3 * components > stop:
        return False
    across, down = np.int64(1), np.int64(1)
    for i in range(components):
        factor = np.int64(memory[frame + 9 + 3 * i])
        across, down = max(across, factor >> 4), max(down, factor & 15)
    for i in range(components):
        factor = np.int64(memory[frame + 9 + 3 * i])
        columns = (width * (factor >> 4) + across - 1) // across
        lines = (height * (factor & 15) + down - 1) // down
        fewest = min(fewest, _blocks(columns) * _blocks(lines))
    return block_bits * fewest > bits


@jit
def _blocks(samples: int) -> int:
    return (samples + 7) // 8


@jit
def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker != 0xC4 and marker != 0xC8 and marker != 0xCC


@jit
def _is_bare(marker: int) -> bool:
    """True for markers without a length."""
    return marker == 0x01 or 0xD0 <= marker <= 0xD9


@jit
def _is_stored_rgb(memory: np.ndarray, field: int, stop: int) -> bool:
    """True for an Adobe segment with colour transform 0."""
    if field + 13 >= stop or memory[field] != 0 or memory[field + 1] != 14:
        return False
    letters = (
        memory[field + 2] == 0x41  # A
        and memory[field + 3] == 0x64  # d
        and memory[field + 4] == 0x6F  # o
        and memory[field + 5] == 0x62  # b
        and memory[field + 6] == 0x65  # e
    )
    return letters and memory[field + 13] == 0


@jit
def _read_by_parser(memory: np.ndarray, start: int, stop: int) -> tuple[int, bool]:
    """Number of bytes that nvImageCodec's parser reads at most, and True if it must be asked.

    The bytes end with the scan's marker (SOS). The parser must be asked about EXIF data and fill
    bytes. The number is 0 if it must be asked every time: for a marker without a length, a second
    frame, or a segment that is too short or extends beyond the end.
    """
    at, frames, unusual = start + 2, 0, False
    while at + 20 <= stop:
        if memory[at] != 0xFF:
            return 0, False
        marker = memory[at + 1]
        if marker == 0xFF:
            unusual = True
            at += 1
            continue
        if marker == 0xDA:
            return (at + 2 - start if frames == 1 else 0), unusual
        size = np.int64(memory[at + 2]) << 8 | memory[at + 3]
        if marker == 0 or size < 2 or _is_bare(marker):
            return 0, False
        if _is_frame(marker):
            frames += 1
            if size < 8 + 3 * np.int64(memory[at + 9]):
                return 0, False
        unusual = unusual or marker == 0xE1
        at += 2 + size
    return 0, False


@jit
def _hash(memory: np.ndarray, start: int, size: int) -> np.uint32:
    """FNV-1a, never 0."""
    value = np.uint32(2166136261)
    for at in range(start, start + size):
        value = np.uint32((value ^ np.uint32(memory[at])) * np.uint32(16777619))
    return np.uint32(value | np.uint32(1))
