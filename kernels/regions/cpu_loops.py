"""Compiled loops of RoI-align on the CPU: two separable passes, channels innermost.

A region's grid of bins is computed row by row: pixels of the map are summed over rows first, which
gives one line of pixels, and that line is summed over columns. CHANNELS channels are processed at a
time, so that the line stays in the L1 cache.

`rows`, `row_extents`, `columns` and `column_extents` below are the output of `bin_weights` for the
two axes, and `pose` [R] int64 is each region's orientation: quarter turns, plus 4 for a mirror.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from patchmill.kernels.common.jit import jit, jit_ieee

CHANNELS = 256  # at a time


@jit_ieee
def bin_weights(
    low: Any,  # [R] float32
    high: Any,  # [R] float32
    weights: Any,  # [R, size, pixels] float32, written within each bin's extent only
    extents: Any,  # [R, size, 2] int32, written: first pixel a bin touches, one after the last
    start: int,
    stop: int,
) -> None:
    """Interpolation weights of pixels along one axis, like `reference.bin_weights`.

    IEEE arithmetic, which torchvision uses to count samples.
    """
    size, pixels = weights.shape[1:]
    half, one = np.float32(0.5), np.float32(1)
    for region in range(start, stop):
        begin = low[region] - half
        length = ((high[region] - half) - begin) / np.float32(size)
        count = np.ceil(length)
        step = length / max(count, one)
        for bin_index in range(size):
            weight = weights[region, bin_index]
            first, last = 0, 0
            corner = begin + np.float32(bin_index) * length
            if not np.isfinite(length):
                weight[:] = np.nan
                last = pixels
            elif count > 0:
                skipped = np.float32(max(np.floor((-one - corner) / step) - one, np.float32(0)))
                for sample in range(2 * pixels + 6):
                    number = skipped + np.float32(sample)
                    position = corner + (number + half) * step
                    if number >= count or position > pixels:
                        break
                    if position < -1:
                        continue
                    # Linear interpolation between the two nearest pixels.
                    position = min(max(position, np.float32(0)), np.float32(pixels - 1))
                    left = int(position)
                    right = min(left + 1, pixels - 1)
                    if last == 0:
                        first = last = left
                    weight[last : right + 1] = 0
                    last = right + 1
                    fraction = position - np.float32(left)
                    weight[left] += (one - fraction) / count
                    weight[right] += fraction / count
            extents[region, bin_index, 0] = first
            extents[region, bin_index, 1] = last


@jit
def pool(
    out: Any,  # [R, size, size, C] float32, written
    maps: Any,  # [N, H, W, C] float32
    index: Any,  # [R] int64
    pose: Any,  # [R] int64
    rows: Any,  # [R, size, H] float32
    row_extents: Any,
    columns: Any,  # [R, size, W] float32
    column_extents: Any,
    start: int,
    stop: int,
) -> None:
    """RoI-align of regions start to stop."""
    line = np.empty((maps.shape[2], CHANNELS), np.float32)
    for region in range(start, stop):
        for left in range(0, maps.shape[3], CHANNELS):
            _pool_region(
                out[region], left, maps[index[region]], left, pose[region],
                rows[region], row_extents[region], columns[region], column_extents[region], line,
            )  # fmt: skip


@jit
def pool_backward(
    out: Any,  # [N, H, W, C] float32, written
    grad_pooled: Any,  # [R, size, size, C] float32
    pose: Any,  # [R] int64
    rows: Any,
    row_extents: Any,
    columns: Any,
    column_extents: Any,
    order: Any,  # [R] int64: regions sorted by map
    offsets: Any,  # [N + 1] int64: where those of each map begin in `order`
    start: int,
    stop: int,
) -> None:
    """Gradient w.r.t. the maps; an item, start to stop, is CHANNELS channels of a map."""
    blocks = (out.shape[3] + CHANNELS - 1) // CHANNELS
    line = np.empty((out.shape[2], CHANNELS), np.float32)
    for item in range(start, stop):
        number, left = item // blocks, item % blocks * CHANNELS
        _clear(out[number], left)
        for slot in range(offsets[number], offsets[number + 1]):
            region = order[slot]
            _add_region_gradient(
                out[number], left, grad_pooled[region], left, pose[region],
                rows[region], row_extents[region], columns[region], column_extents[region], line,
            )  # fmt: skip


@jit
def bin_products(
    sums: Any,  # [R, size * size, 3] float32, written: s.t, s.s and t.t of each bin
    student: Any,  # [S, h, w, C] float32
    teacher: Any,  # [T, H, W, C] float32
    student_index: Any,  # [R] int64
    teacher_index: Any,  # [R] int64
    pose: Any,  # [R] int64
    rows: Any,  # of the student's boxes
    row_extents: Any,
    columns: Any,
    column_extents: Any,
    teacher_rows: Any,  # of the teacher's boxes
    teacher_row_extents: Any,
    teacher_columns: Any,
    teacher_column_extents: Any,
    start: int,
    stop: int,
) -> None:
    """Dot products of the pooled channels s and t of each pair of bins; no grid is kept."""
    size, channels = rows.shape[1], student.shape[3]
    line = np.empty((max(student.shape[2], teacher.shape[2]), CHANNELS), np.float32)
    grid_s = np.empty((size, size, min(CHANNELS, channels)), np.float32)
    grid_t = np.empty_like(grid_s)
    for region in range(start, stop):
        sums[region] = 0
        for left in range(0, channels, CHANNELS):
            _pool_region(
                grid_s, 0, student[student_index[region]], left, 0,
                rows[region], row_extents[region], columns[region], column_extents[region], line,
            )  # fmt: skip
            _pool_region(
                grid_t, 0, teacher[teacher_index[region]], left, pose[region],
                teacher_rows[region], teacher_row_extents[region],
                teacher_columns[region], teacher_column_extents[region], line,
            )  # fmt: skip
            width = min(CHANNELS, channels - left)
            for b in range(size * size):
                s, t = grid_s[b // size, b % size], grid_t[b // size, b % size]
                product, square_s, square_t = np.float32(0), np.float32(0), np.float32(0)
                for i in range(width):
                    product += s[i] * t[i]
                    square_s += s[i] * s[i]
                    square_t += t[i] * t[i]
                sums[region, b, 0] += product
                sums[region, b, 1] += square_s
                sums[region, b, 2] += square_t


@jit
def crop_loss_backward(
    out: Any,  # [S, h, w, C] float32, written: the gradient w.r.t. the student
    weight: Any,  # [R] float32: gradient w.r.t. the cosine of each of a region's bins
    scale_t: Any,  # [R, size * size] float32
    scale_s: Any,  # [R, size * size] float32
    student: Any,  # [S, h, w, C] float32
    teacher: Any,  # [T, H, W, C] float32
    teacher_index: Any,  # [R] int64
    pose: Any,  # [R] int64
    rows: Any,  # of the student's boxes
    row_extents: Any,
    columns: Any,
    column_extents: Any,
    teacher_rows: Any,  # of the teacher's boxes
    teacher_row_extents: Any,
    teacher_columns: Any,
    teacher_column_extents: Any,
    order: Any,  # [R] int64: regions sorted by the student's map
    offsets: Any,  # [S + 1] int64
    start: int,
    stop: int,
) -> None:
    """Gradient w.r.t. the student's maps; an item, start to stop, is CHANNELS channels of a map."""
    size, channels = rows.shape[1], out.shape[3]
    blocks = (channels + CHANNELS - 1) // CHANNELS
    line = np.empty((max(student.shape[2], teacher.shape[2]), CHANNELS), np.float32)
    grid_s = np.empty((size, size, min(CHANNELS, channels)), np.float32)
    grid_t = np.empty_like(grid_s)
    for item in range(start, stop):
        number, left = item // blocks, item % blocks * CHANNELS
        width = min(CHANNELS, channels - left)
        _clear(out[number], left)
        for slot in range(offsets[number], offsets[number + 1]):
            region = order[slot]
            # Recompute both grids.
            _pool_region(
                grid_s, 0, student[number], left, 0,
                rows[region], row_extents[region], columns[region], column_extents[region], line,
            )  # fmt: skip
            _pool_region(
                grid_t, 0, teacher[teacher_index[region]], left, pose[region],
                teacher_rows[region], teacher_row_extents[region],
                teacher_columns[region], teacher_column_extents[region], line,
            )  # fmt: skip
            # Gradient w.r.t. the student's grid, in place.
            for b in range(size * size):
                s, t = grid_s[b // size, b % size], grid_t[b // size, b % size]
                factor_t = weight[region] * scale_t[region, b]
                factor_s = weight[region] * scale_s[region, b]
                for i in range(width):
                    s[i] = factor_t * t[i] - factor_s * s[i]
            _add_region_gradient(
                out[number], left, grid_s, 0, 0,
                rows[region], row_extents[region], columns[region], column_extents[region], line,
            )  # fmt: skip


# ------------------------------------------------------------------------ one region, some channels


@jit
def _pool_region(
    out: Any,  # [size, size, .]: channels from `out_left` on are written
    out_left: int,
    features: Any,  # [H, W, C]: channels from `left` on
    left: int,
    pose: int,
    rows: Any,  # [size, H]
    row_extents: Any,
    columns: Any,  # [size, W]
    column_extents: Any,
    line: Any,  # [W, CHANNELS]: scratch memory
) -> None:
    """Pool one region of a map, in its orientation."""
    size = len(rows)
    width = min(CHANNELS, features.shape[2] - left)
    first, last = _total_extent(column_extents)
    for p in range(size):
        # Sum over rows: one line of pixels.
        top, bottom = row_extents[p]
        for x in range(first, last):
            total = line[x, :width]
            total[:] = 0
            for y in range(top, bottom):
                _add_scaled(total, features[y, x, left : left + width], rows[p, y])
        # Sum over columns: one row of bins.
        for q in range(size):
            i, j = _oriented(p, q, size, pose)
            pooled = out[i, j, out_left : out_left + width]
            pooled[:] = 0
            for x in range(column_extents[q, 0], column_extents[q, 1]):
                _add_scaled(pooled, line[x, :width], columns[q, x])


@jit
def _add_region_gradient(
    out: Any,  # [H, W, C]: channels from `left` on are added to
    left: int,
    grad_pooled: Any,  # [size, size, .]: channels from `grad_left` on
    grad_left: int,
    pose: int,
    rows: Any,  # [size, H]
    row_extents: Any,
    columns: Any,  # [size, W]
    column_extents: Any,
    line: Any,  # [W, CHANNELS]: scratch memory
) -> None:
    """Add the gradient w.r.t. one region's map: the transpose of `_pool_region`."""
    size = len(rows)
    width = min(CHANNELS, out.shape[2] - left)
    first, last = _total_extent(column_extents)
    for p in range(size):
        top, bottom = row_extents[p]
        line[first:last] = 0
        for q in range(size):
            i, j = _oriented(p, q, size, pose)
            grad = grad_pooled[i, j, grad_left : grad_left + width]
            for x in range(column_extents[q, 0], column_extents[q, 1]):
                _add_scaled(line[x, :width], grad, columns[q, x])
        for y in range(top, bottom):
            for x in range(first, last):
                _add_scaled(out[y, x, left : left + width], line[x, :width], rows[p, y])


@jit
def _total_extent(extents: Any) -> Any:
    """First pixel that any bin touches, and one after the last."""
    first, last = 1 << 30, 0
    for b in range(len(extents)):
        if extents[b, 1]:
            first = min(first, extents[b, 0])
            last = max(last, extents[b, 1])
    return first, last


@jit
def _oriented(row: int, column: int, size: int, pose: int) -> Any:
    """Row and column of a bin after the mirror and the quarter turns."""
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
def _add_scaled(total: Any, vector: Any, factor: Any) -> None:
    for i in range(len(total)):
        total[i] += factor * vector[i]


@jit
def _clear(features: Any, left: int) -> None:
    for y in range(features.shape[0]):
        for x in range(features.shape[1]):
            features[y, x, left : left + CHANNELS] = 0
