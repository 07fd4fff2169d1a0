"""The loops of the CPU's pooling: two passes of few pixels each, all channels beside one another.

A region's grid is made row by row: pixels of the map are summed down the rows first, which leaves
one line of pixels, and that line is summed across. Channels are taken some at a time, so that the
line stays in the processor's nearest cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from patchmill.kernels.common.jit import jit, jit_ieee

CHANNELS = 256  # at a time


@jit_ieee
def share_out(
    low: Any,  # [R] float32
    high: Any,
    shares: Any,  # [R, size, pixels] float32: what a pixel counts for; unset outside of its span
    spans: Any,  # [R, size, 2] int32: the first pixel a bin touches, and one after the last
    start: int,
    stop: int,
) -> None:
    """As `reference.shares`; in IEEE arithmetic, by which torchvision counts samples."""
    size, pixels = shares.shape[1:]
    half, one = np.float32(0.5), np.float32(1)
    for region in range(start, stop):
        begin = low[region] - half
        length = ((high[region] - half) - begin) / np.float32(size)
        count = np.ceil(length)
        step = length / max(count, one)
        for cell in range(size):
            share = shares[region, cell]
            first, last = 0, 0
            corner = begin + np.float32(cell) * length
            if not np.isfinite(length):
                share[:] = np.nan
                last = pixels
            elif count > 0:
                skipped = np.float32(max(np.floor((-one - corner) / step) - one, np.float32(0)))
                for sample in range(2 * pixels + 6):
                    number = skipped + np.float32(sample)
                    place = corner + (number + half) * step
                    if number >= count or place > pixels:
                        break
                    if place < -1:
                        continue
                    place = min(max(place, np.float32(0)), np.float32(pixels - 1))
                    left = int(place)
                    right = min(left + 1, pixels - 1)
                    if last == 0:
                        first = last = left
                    share[last : right + 1] = 0
                    last = right + 1
                    part = place - np.float32(left)
                    share[left] += (one - part) / count
                    share[right] += part / count
            spans[region, cell, 0] = first
            spans[region, cell, 1] = last


@jit
def pool(
    out: Any,  # [R, size, size, C] float32
    maps: Any,  # [N, H, W, C] float32
    index: Any,
    pose: Any,
    down: Any,  # [R, size, H]: shares, and their spans
    down_spans: Any,
    across: Any,  # [R, size, W]
    across_spans: Any,
    start: int,
    stop: int,
) -> None:
    line = np.empty((maps.shape[2], CHANNELS), np.float32)
    for region in range(start, stop):
        for left in range(0, maps.shape[3], CHANNELS):
            _pool(
                out[region], left, maps[index[region]], left, pose[region],
                down[region], down_spans[region], across[region], across_spans[region], line,
            )  # fmt: skip


@jit
def unpool(
    out: Any,  # [N, H, W, C] float32
    gradient: Any,  # [R, size, size, C] float32
    pose: Any,
    down: Any,
    down_spans: Any,
    across: Any,
    across_spans: Any,
    order: Any,  # [R]: the regions, sorted by map
    ends: Any,  # [N + 1]: where those of a map begin among them
    start: int,
    stop: int,
) -> None:
    """Items `start` to `stop`: CHANNELS channels of a map."""
    blocks = (out.shape[3] + CHANNELS - 1) // CHANNELS
    line = np.empty((out.shape[2], CHANNELS), np.float32)
    for item in range(start, stop):
        here, left = item // blocks, item % blocks * CHANNELS
        _clear(out[here], left)
        for slot in range(ends[here], ends[here + 1]):
            region = order[slot]
            _unpool(
                out[here], left, gradient[region], left, pose[region],
                down[region], down_spans[region], across[region], across_spans[region], line,
            )  # fmt: skip


@jit
def compare(
    sums: Any,  # [R, size * size, 3] float32: s.t, s.s and t.t
    student: Any,  # [S, h, w, C] float32
    teacher: Any,  # [T, H, W, C] float32
    of_student: Any,
    of_teacher: Any,
    pose: Any,
    down: Any,  # of the student's boxes
    down_spans: Any,
    across: Any,
    across_spans: Any,
    far_down: Any,  # of the teacher's
    far_down_spans: Any,
    far_across: Any,
    far_across_spans: Any,
    start: int,
    stop: int,
) -> None:
    size, deep = down.shape[1], student.shape[3]
    line = np.empty((max(student.shape[2], teacher.shape[2]), CHANNELS), np.float32)
    near = np.empty((size, size, min(CHANNELS, deep)), np.float32)
    far = np.empty_like(near)
    for region in range(start, stop):
        sums[region] = 0
        for left in range(0, deep, CHANNELS):
            _pool(
                near, 0, student[of_student[region]], left, 0,
                down[region], down_spans[region], across[region], across_spans[region], line,
            )  # fmt: skip
            _pool(
                far, 0, teacher[of_teacher[region]], left, pose[region], far_down[region],
                far_down_spans[region], far_across[region], far_across_spans[region], line,
            )  # fmt: skip
            wide = min(CHANNELS, deep - left)
            for cell in range(size * size):
                s, t = near[cell // size, cell % size], far[cell // size, cell % size]
                product, square_s, square_t = np.float32(0), np.float32(0), np.float32(0)
                for i in range(wide):
                    product += s[i] * t[i]
                    square_s += s[i] * s[i]
                    square_t += t[i] * t[i]
                sums[region, cell, 0] += product
                sums[region, cell, 1] += square_s
                sums[region, cell, 2] += square_t


@jit
def slope(
    out: Any,  # [S, h, w, C] float32: the gradient by the student
    weight: Any,  # [R]: that by the cosine of each of a region's cells
    toward: Any,  # [R, size * size]
    along: Any,
    student: Any,
    teacher: Any,
    of_teacher: Any,
    pose: Any,
    down: Any,
    down_spans: Any,
    across: Any,
    across_spans: Any,
    far_down: Any,
    far_down_spans: Any,
    far_across: Any,
    far_across_spans: Any,
    order: Any,
    ends: Any,
    start: int,
    stop: int,
) -> None:
    """Items `start` to `stop`: CHANNELS channels of a map."""
    size, deep = down.shape[1], out.shape[3]
    blocks = (deep + CHANNELS - 1) // CHANNELS
    line = np.empty((max(student.shape[2], teacher.shape[2]), CHANNELS), np.float32)
    near = np.empty((size, size, min(CHANNELS, deep)), np.float32)
    far = np.empty_like(near)
    for item in range(start, stop):
        here, left = item // blocks, item % blocks * CHANNELS
        wide = min(CHANNELS, deep - left)
        _clear(out[here], left)
        for slot in range(ends[here], ends[here + 1]):
            region = order[slot]
            _pool(
                near, 0, student[here], left, 0,
                down[region], down_spans[region], across[region], across_spans[region], line,
            )  # fmt: skip
            _pool(
                far, 0, teacher[of_teacher[region]], left, pose[region], far_down[region],
                far_down_spans[region], far_across[region], far_across_spans[region], line,
            )  # fmt: skip
            for cell in range(size * size):
                s, t = near[cell // size, cell % size], far[cell // size, cell % size]
                to_t = weight[region] * toward[region, cell]
                to_s = weight[region] * along[region, cell]
                for i in range(wide):
                    s[i] = to_t * t[i] - to_s * s[i]
            _unpool(
                out[here], left, near, 0, 0,
                down[region], down_spans[region], across[region], across_spans[region], line,
            )  # fmt: skip


# ------------------------------------------------------------------------ one region, some channels


@jit
def _pool(
    out: Any, place: int, features: Any, left: int, pose: int,
    down: Any, down_spans: Any, across: Any, across_spans: Any, line: Any,
) -> None:  # fmt: skip
    """Channels from `left` on, of out from `place` on."""
    size = len(down)
    wide = min(CHANNELS, features.shape[2] - left)
    first, last = _touched(across_spans)
    for row in range(size):
        top, bottom = down_spans[row]
        for x in range(first, last):
            total = line[x, :wide]
            total[:] = 0
            for y in range(top, bottom):
                _add(total, features[y, x, left : left + wide], down[row, y])
        for column in range(size):
            i, j = _placed(row, column, size, pose)
            cell = out[i, j, place : place + wide]
            cell[:] = 0
            for x in range(across_spans[column, 0], across_spans[column, 1]):
                _add(cell, line[x, :wide], across[column, x])


@jit
def _unpool(
    out: Any, left: int, gradient: Any, place: int, pose: int,
    down: Any, down_spans: Any, across: Any, across_spans: Any, line: Any,
) -> None:  # fmt: skip
    """Added to out, channels from `left` on, of gradient from `place` on."""
    size = len(down)
    wide = min(CHANNELS, out.shape[2] - left)
    first, last = _touched(across_spans)
    for row in range(size):
        top, bottom = down_spans[row]
        line[first:last] = 0
        for column in range(size):
            i, j = _placed(row, column, size, pose)
            cell = gradient[i, j, place : place + wide]
            for x in range(across_spans[column, 0], across_spans[column, 1]):
                _add(line[x, :wide], cell, across[column, x])
        for y in range(top, bottom):
            for x in range(first, last):
                _add(out[y, x, left : left + wide], line[x, :wide], down[row, y])


@jit
def _touched(spans: Any) -> Any:
    """From which pixel to which all bins together reach."""
    first, last = 1 << 30, 0
    for cell in range(len(spans)):
        if spans[cell, 1]:
            first = min(first, spans[cell, 0])
            last = max(last, spans[cell, 1])
    return first, last


@jit
def _placed(row: int, column: int, size: int, pose: int) -> Any:
    """Where a cell is after the mirror and the turns."""
    if pose >= 4:
        column = size - 1 - column
    turns = pose % 4
    if turns == 1:
        return size - 1 - column, row
    if turns == 2:
        return size - 1 - row, size - 1 - column
    if turns == 3:
        return column, size - 1 - row
    return row, column


@jit
def _add(total: Any, vector: Any, weight: Any) -> None:
    for i in range(len(total)):
        total[i] += weight * vector[i]


@jit
def _clear(features: Any, left: int) -> None:
    for y in range(features.shape[0]):
        for x in range(features.shape[1]):
            features[y, x, left : left + CHANNELS] = 0
