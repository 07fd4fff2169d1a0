"""The loops of the CPU's matching that no torch function does in one pass.

All of them keep to IEEE arithmetic: with fast mathematics a NaN may compare as anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from patchmill.kernels.common.floats16 import store_float, to_float
from patchmill.kernels.common.jit import jit_ieee
from patchmill.kernels.common.memory import borrow

LANES = 64  # of 196 columns, 32 to 64 at a time are quickest
NAN_RANK = np.float32(np.inf)  # stands for NaN where numbers are compared; no cosine is as large


@jit_ieee
def take_in(
    products: Any,  # [n, rows, columns]
    scale_a: Any,  # [n, rows]
    scale_b: Any,  # [n, columns]
    best_a: Any,  # [R, A], and [R, B] below: the best so far, and where
    place_a: Any,
    best_b: Any,
    place_b: Any,
    first_pair: int,
    first_row: int,
    first_column: int,
) -> None:
    """What a block of products says about the best matches.

    Blocks come in the order of their rows and columns, so a later one must be better to win.
    """
    top = np.empty(LANES, np.float32)
    where = np.empty(LANES, np.int32)
    columns = products.shape[2]
    for here in range(len(products)):
        pair = first_pair + here
        for row in range(products.shape[1]):
            top[:] = -NAN_RANK
            where[:] = 0
            scale = scale_a[here, row]
            for left in range(0, columns, LANES):
                right = min(left + LANES, columns)
                some = products[here, row, left:right]
                scales = scale_b[here, left:right]
                best = best_b[pair, first_column + left : first_column + right]
                place = place_b[pair, first_column + left : first_column + right]
                for lane in range(right - left):
                    cosine = some[lane] * scale * scales[lane]
                    cosine = cosine if cosine == cosine else NAN_RANK
                    wins = cosine > top[lane]
                    top[lane] = cosine if wins else top[lane]
                    where[lane] = np.int32(left) if wins else where[lane]
                    wins = cosine > best[lane]
                    best[lane] = cosine if wins else best[lane]
                    place[lane] = np.int32(first_row + row) if wins else place[lane]
            lane = 0
            for other in range(1, min(LANES, columns)):
                same = top[other] == top[lane] and where[other] < where[lane]
                if top[other] > top[lane] or same:
                    lane = other
            if top[lane] > best_a[pair, first_row + row]:
                best_a[pair, first_row + row] = top[lane]
                place_a[pair, first_row + row] = first_column + where[lane] + lane


@jit_ieee
def pull(
    out: Any,  # [S, A, d], as the student: the gradient by it
    student: Any,  # [S, A, d]
    teacher: Any,  # [T, B, d]
    weight: Any,  # [R] by the cosine of a match that counts
    of_teacher: Any,  # [R]: the number of the teacher's map
    order: Any,  # [R]: the pairs, sorted by the student's map
    ends: Any,  # [S + 1]: where the pairs of a map begin among them
    partner_a: Any,
    similarity_a: Any,
    partner_b: Any,
    similarity_b: Any,
    scale_a: Any,
    scale_b: Any,
    start: int,
    stop: int,
) -> None:
    """Maps start to stop: d cos(s, t) / ds = (t/|t| - cos s/|s|) / |s|, summed over the matches
    that count.
    """
    out, student, teacher = borrow(out), borrow(student), borrow(teacher)
    tokens, deep = out.shape[1:]
    memory, along = np.empty((tokens, deep), np.float32), np.empty(tokens, np.float32)
    for here in range(start, stop):
        grown = borrow(memory)  # here, so that it is alive until the last map is done
        grown[:] = 0
        along[:] = 0
        for slot in range(ends[here], ends[here + 1]):
            pair = order[slot]
            number_of = of_teacher[pair]
            for token in range(tokens):
                other = partner_a[pair, token]
                if other >= 0:
                    along[token] += weight[pair] * similarity_a[pair, token]
                    factor = weight[pair] * scale_b[number_of, other]
                    _add(grown[token], teacher[number_of, other], factor)
            for other in range(scale_b.shape[1]):
                token = partner_b[pair, other]
                if token >= 0:
                    along[token] += weight[pair] * similarity_b[pair, other]
                    factor = weight[pair] * scale_b[number_of, other]
                    _add(grown[token], teacher[number_of, other], factor)
        for token in range(tokens):
            scale = scale_a[here, token]
            back = along[token] * scale
            total, vector, made = grown[token], student[here, token], out[here, token]
            for i in range(deep):
                store_float(made, i, (total[i] - back * to_float(vector[i])) * scale)


@jit_ieee
def _add(total: Any, vector: Any, weight: Any) -> None:
    for i in range(len(total)):
        total[i] += weight * to_float(vector[i])
