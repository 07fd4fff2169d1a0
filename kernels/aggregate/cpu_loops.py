"""Compiled loops of aggregation on the CPU: segment means, their gradient, and a counting sort.

Sums along a row use LANES lanes on every processor, so that they are the same everywhere.
Functions take an array and a row index: passing a row as an array of its own would count
references, which takes as long as adding a hundred numbers.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.aggregate.reference import EPS
from patchmill.kernels.common.floats16 import store_float, to_float
from patchmill.kernels.common.jit import jit_ieee
from patchmill.kernels.common.memory import borrow, store_fence, stream_row

LANES = 64
ZERO, ONE, SHORT = np.float32(0), np.float32(1), np.float32(EPS)


@jit_ieee
def segment_means(
    rows, weights, order, offsets, unit_rows, unit_mean, start, stop, means, totals, lengths
):  # fmt: skip
    """Means of segments start to stop, sums of their weights, lengths of the means.

    rows is [P, d]; weights [P] and order [P] may be empty, offsets is [B + 1].
    """
    rows, means = borrow(rows), borrow(means)
    lanes = np.empty(LANES, np.float32)
    for segment in range(start, stop):
        scale_row(means, segment, ZERO, True)
        total = ZERO
        for at in range(offsets[segment], offsets[segment + 1]):
            row = order[at] if len(order) else at
            weight = weights[row] if len(weights) else ONE
            total += weight
            if unit_rows:
                weight *= inverse_length(np.sqrt(dot(rows, row, rows, row, lanes)))
            add_row(means, segment, rows, row, weight)
        scale_row(means, segment, ONE / total, total == ZERO)
        totals[segment] = total
        lengths[segment] = ONE
        if unit_mean:
            lengths[segment] = np.sqrt(dot(means, segment, means, segment, lanes))
            scale_row(means, segment, inverse_length(lengths[segment]), False)


@jit_ieee
def segment_backward(
    grad_sums,
    grad_dot_mean,
    rows,
    weights,
    order,
    offsets,
    unit_rows,
    stream,
    start,
    stop,
    grad_rows,
    grad_weights,
):
    """Gradients w.r.t. the rows and weights of segments start to stop.

    W.r.t. a row it is weight * grad_sums; with `unit_rows` only the part orthogonal to the row,
    divided by its length. W.r.t. its weight it is grad_sums . row (as summed) - grad_dot_mean. With
    `stream`, rows are written past the cache.
    """
    rows, grad_sums, grad_rows = borrow(rows), borrow(grad_sums), borrow(grad_rows)
    lanes = np.empty(LANES, np.float32)
    memory = np.empty((1, grad_sums.shape[1]), grad_rows.dtype)
    same_for_all = not unit_rows and len(weights) == 0
    for segment in range(start, stop):
        # Converted once for all rows of the segment; borrowed in the loop, so that the memory lives
        # until the last segment is done.
        converted = borrow(memory)
        if same_for_all:
            store_scaled(grad_sums, segment, ONE, converted, 0)
        for at in range(offsets[segment], offsets[segment + 1]):
            row = order[at] if len(order) else at
            weight = weights[row] if len(weights) else ONE
            inverse, projection = ONE, ZERO
            if unit_rows:
                inverse = inverse_length(np.sqrt(dot(rows, row, rows, row, lanes)))
            if unit_rows or len(grad_weights):
                projection = inverse * dot(grad_sums, segment, rows, row, lanes)
            if len(grad_weights):
                grad_weights[row] = projection - grad_dot_mean[segment]
            if len(grad_rows) and same_for_all and stream:
                stream_row(converted[0], grad_rows[row])
            elif len(grad_rows) and same_for_all:
                copy_row(converted, grad_rows, row)
            elif len(grad_rows) and unit_rows:
                factor, along = weight * inverse, projection * inverse
                store_orthogonal(grad_sums, segment, rows, row, factor, along, grad_rows)
            elif len(grad_rows):
                store_scaled(grad_sums, segment, weight, grad_rows, row)
    store_fence()


@jit_ieee
def counting_sort(index, offsets, order):  # type: ignore[no-untyped-def]
    """Stable counting sort: offsets [images + 1], zeros on entry, and order [P] of an index [P]."""
    for image in index:
        offsets[image + 1] += 1
    for image in range(1, len(offsets)):
        offsets[image] += offsets[image - 1]
    free = offsets[:-1].copy()
    for row in range(len(index)):
        order[free[index[row]]] = row
        free[index[row]] += 1


# ------------------------------------------------------------------------------ one row


@jit_ieee
def add_row(means, segment, rows, row, factor):
    """means[segment] += factor * rows[row]. One row at a time: several streams are slower."""
    mean, source = means[segment], rows[row]
    for i in range(len(mean)):
        mean[i] += factor * to_float(source[i])


@jit_ieee
def scale_row(means, segment, factor, clear):
    """means[segment] *= factor, or zeros."""
    mean = means[segment]
    for i in range(len(mean)):
        mean[i] = ZERO if clear else mean[i] * factor


@jit_ieee
def store_scaled(grad_sums, segment, weight, out, row):
    """out[row] = weight * grad_sums[segment]."""
    grad, target = grad_sums[segment], out[row]
    for i in range(len(grad)):
        store_float(target, i, weight * grad[i])


@jit_ieee
def store_orthogonal(grad_sums, segment, rows, row, factor, along, out):
    """out[row] = factor * (grad_sums[segment] - along * rows[row])."""
    grad, source, target = grad_sums[segment], rows[row], out[row]
    for i in range(len(grad)):
        store_float(target, i, factor * (grad[i] - along * to_float(source[i])))


@jit_ieee
def copy_row(converted, out, row):
    source, target = converted[0], out[row]
    for i in range(len(source)):
        target[i] = source[i]


@jit_ieee
def inverse_length(length):
    return ZERO if length <= SHORT else ONE / length


@jit_ieee
def dot(left, i, right, j, lanes):
    """left[i] . right[j]"""
    a, b = left[i], right[j]
    for k in range(LANES):
        lanes[k] = ZERO
    vectorised = len(a) // LANES * LANES
    for start in range(0, vectorised, LANES):
        a_chunk, b_chunk = a[start : start + LANES], b[start : start + LANES]
        for k in range(LANES):
            lanes[k] += to_float(a_chunk[k]) * to_float(b_chunk[k])
    for k in range(len(a) - vectorised):
        lanes[k] += to_float(a[vectorised + k]) * to_float(b[vectorised + k])
    total = ZERO
    for k in range(LANES):
        total += lanes[k]
    return total
