"""The loops of the CPU's matching that no torch function does in one pass.

All of them keep to IEEE arithmetic: with fast mathematics a NaN may compare as anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from patchmill.kernels.jit import exact

LANES = 64  # of 196 columns, 32 to 64 at a time are quickest
NAN_RANK = np.float32(np.inf)  # stands for NaN where numbers are compared; no cosine is as large


@exact
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


@exact
def pull(
    out: Any,  # [maps, A, d] float32: the gradient of the student's maps from number `first`
    student: Any,  # [maps, A, d] float32
    teacher: Any,  # [., B, d] float32
    weight: Any,  # [R] by the cosine of a match that counts
    place: Any,  # [R]: where the teacher's map of a pair is in `teacher`
    of_teacher: Any,  # [R]: and its number
    order: Any,  # [R]: the pairs, sorted by the student's map
    ends: Any,  # [S + 1]: where the pairs of a map begin among them
    partner_a: Any,
    similarity_a: Any,
    partner_b: Any,
    similarity_b: Any,
    scale_a: Any,
    scale_b: Any,
    first: int,
) -> None:
    """d cos(s, t) / ds = (t/|t| - cos s/|s|) / |s|, summed over the matches that count."""
    tokens, deep = out.shape[1:]
    along = np.empty(tokens, np.float32)
    for here in range(len(out)):
        grown = out[here]
        grown[:] = 0
        along[:] = 0
        for slot in range(ends[first + here], ends[first + here + 1]):
            pair = order[slot]
            others = teacher[place[pair]]
            scales = scale_b[of_teacher[pair]]
            for token in range(tokens):
                other = partner_a[pair, token]
                if other >= 0:
                    along[token] += weight[pair] * similarity_a[pair, token]
                    _add(grown[token], others[other], weight[pair] * scales[other])
            for other in range(len(scales)):
                token = partner_b[pair, other]
                if token >= 0:
                    along[token] += weight[pair] * similarity_b[pair, other]
                    _add(grown[token], others[other], weight[pair] * scales[other])
        for token in range(tokens):
            scale = scale_a[first + here, token]
            back = along[token] * scale
            for i in range(deep):
                grown[token, i] = (grown[token, i] - back * student[here, token, i]) * scale


@exact
def _add(total: Any, vector: Any, weight: Any) -> None:
    for i in range(len(total)):
        total[i] += weight * vector[i]
