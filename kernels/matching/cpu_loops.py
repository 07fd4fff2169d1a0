"""Compiled loops of matching on the CPU, for steps that no torch function does in one pass.

IEEE arithmetic throughout: with fastmath a comparison with NaN may have any result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from patchmill.kernels.common.floats16 import store_float, to_float
from patchmill.kernels.common.jit import jit_ieee
from patchmill.kernels.common.memory import borrow

LANES = 64  # fastest for 196 columns, as is 32
NAN_RANK = np.float32(np.inf)  # stands for NaN in comparisons; no cosine is as large


@jit_ieee
def update_best(
    products: Any,  # [n, rows, columns] float32
    inverse_norm_a: Any,  # [n, rows] float32
    inverse_norm_b: Any,  # [n, columns] float32
    max_a: Any,  # [R, A] float32: the best similarity so far
    argmax_a: Any,  # [R, A] int32
    max_b: Any,  # [R, B] float32
    argmax_b: Any,  # [R, B] int32
    first_pair: int,
    first_row: int,
    first_column: int,
) -> None:
    """Update row and column maxima of the cosines with one block of products.

    Blocks come in order of their rows and columns, so a later one must be strictly better to win.
    """
    lane_max = np.empty(LANES, np.float32)
    lane_left = np.empty(LANES, np.int32)
    columns = products.shape[2]
    for n in range(len(products)):
        pair = first_pair + n
        for row in range(products.shape[1]):
            lane_max[:] = -NAN_RANK
            lane_left[:] = 0
            scale = inverse_norm_a[n, row]
            for left in range(0, columns, LANES):
                right = min(left + LANES, columns)
                chunk = products[n, row, left:right]
                scales = inverse_norm_b[n, left:right]
                column_max = max_b[pair, first_column + left : first_column + right]
                column_argmax = argmax_b[pair, first_column + left : first_column + right]
                for lane in range(right - left):
                    cosine = chunk[lane] * scale * scales[lane]
                    cosine = cosine if cosine == cosine else NAN_RANK
                    # The row's maximum, one per lane.
                    wins = cosine > lane_max[lane]
                    lane_max[lane] = cosine if wins else lane_max[lane]
                    lane_left[lane] = np.int32(left) if wins else lane_left[lane]
                    # The column's maximum.
                    wins = cosine > column_max[lane]
                    column_max[lane] = cosine if wins else column_max[lane]
                    column_argmax[lane] = np.int32(first_row + row) if wins else column_argmax[lane]
            # Reduce the lanes: ties go to the first column.
            lane = 0
            for other in range(1, min(LANES, columns)):
                earlier = lane_max[other] == lane_max[lane] and lane_left[other] < lane_left[lane]
                if lane_max[other] > lane_max[lane] or earlier:
                    lane = other
            if lane_max[lane] > max_a[pair, first_row + row]:
                max_a[pair, first_row + row] = lane_max[lane]
                argmax_a[pair, first_row + row] = first_column + lane_left[lane] + lane


@jit_ieee
def correspond_backward(
    out: Any,  # [S, A, d], dtype of the student: its gradient, written
    student: Any,  # [S, A, d]
    teacher: Any,  # [T, B, d]
    weight: Any,  # [R] float32: gradient w.r.t. the cosine of a match that counts
    teacher_index: Any,  # [R]: the pair's map of the teacher
    order: Any,  # [R]: pairs sorted by the student's map
    offsets: Any,  # [S + 1]: where the pairs of each map begin in `order`
    match_a: Any,  # [R, A] int32, and so on: `Saved`
    similarity_a: Any,
    match_b: Any,
    similarity_b: Any,
    inverse_norm_a: Any,
    inverse_norm_b: Any,
    start: int,
    stop: int,
) -> None:
    """Gradient w.r.t. the student's maps start to stop.

    d cos(s, t) / ds = (t/|t| - cos s/|s|) / |s|, summed over the matches that count.
    """
    out, student, teacher = borrow(out), borrow(student), borrow(teacher)
    tokens, d = out.shape[1:]
    memory, weighted_cosine = np.empty((tokens, d), np.float32), np.empty(tokens, np.float32)
    for map_a in range(start, stop):
        total = borrow(memory)  # in the loop, so that the memory lives until the last map is done
        total[:] = 0
        weighted_cosine[:] = 0
        for slot in range(offsets[map_a], offsets[map_a + 1]):
            pair = order[slot]
            map_b = teacher_index[pair]
            # Matches of the student's tokens.
            for token in range(tokens):
                other = match_a[pair, token]
                if other >= 0:
                    weighted_cosine[token] += weight[pair] * similarity_a[pair, token]
                    factor = weight[pair] * inverse_norm_b[map_b, other]
                    _add_scaled(total[token], teacher[map_b, other], factor)
            # Matches of the teacher's tokens.
            for other in range(inverse_norm_b.shape[1]):
                token = match_b[pair, other]
                if token >= 0:
                    weighted_cosine[token] += weight[pair] * similarity_b[pair, other]
                    factor = weight[pair] * inverse_norm_b[map_b, other]
                    _add_scaled(total[token], teacher[map_b, other], factor)
        # Subtract the projection on the token, and divide by its norm.
        for token in range(tokens):
            scale = inverse_norm_a[map_a, token]
            projection = weighted_cosine[token] * scale
            row, vector, grad = total[token], student[map_a, token], out[map_a, token]
            for i in range(d):
                store_float(grad, i, (row[i] - projection * to_float(vector[i])) * scale)


@jit_ieee
def _add_scaled(total: Any, vector: Any, factor: Any) -> None:
    for i in range(len(total)):
        total[i] += factor * to_float(vector[i])
