"""Means of rows on the CPU: one pass over the rows, each normalised while it is in the cache.

A group is summed by one thread, its rows in their order: the same to the bit whatever the number of
threads. Sums along a row are made in LANES lanes, whatever the processor.
"""

from __future__ import annotations

import numpy as np
import torch

from patchmill.kernels.common.floats16 import as_numpy, store_float, to_float
from patchmill.kernels.common.jit import announce_compilation, jit_ieee
from patchmill.kernels.common.memory import allocate, borrow, can_stream, store_fence, stream_row
from patchmill.kernels.common.parallel import parallel_ranges
from patchmill.kernels.patches.reference import EPS

LANES = 64
LEAST = 1 << 20  # numbers that are worth a thread: 0.2 ms, and to wake one takes half of that
ZERO, ONE, SHORT = np.float32(0), np.float32(1), np.float32(EPS)
NO_ORDER, NO_WEIGHTS = np.empty(0, np.int64), np.empty(0, np.float32)


def forward(
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    each: bool,
    unit: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means [B, d] float32, sums of weights [B], and the means' lengths [B] before `unit`."""
    groups, d = len(offsets) - 1, embeddings.shape[1]
    means, totals, lengths = torch.empty(groups, d), torch.empty(groups), torch.empty(groups)
    rows = as_numpy(embeddings)
    numpy = _optional(weights, order)
    made = means.numpy(), totals.numpy(), lengths.numpy()

    def work(start: int, stop: int) -> None:
        average(rows, *numpy, offsets.numpy(), each, unit, start, stop, *made)

    with announce_compilation():
        parallel_ranges(work, groups, _least(embeddings.numel(), groups))
    return means, totals, lengths


def pulled(
    slope: torch.Tensor,
    rest: torch.Tensor,
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    rows: int,
    each: bool,
    by_rows: bool,
    by_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients by rows [P, d], like embeddings, and weights [P] float32; empty if not asked for.

    `slope` is the gradient by the sums of the groups, [B, d]; `rest` its products with the means.
    """
    d = slope.shape[1]
    out = allocate((rows if by_rows else 0, d), embeddings.dtype)
    gains = torch.empty(rows if by_weights else 0)
    read, made = as_numpy(embeddings), as_numpy(out)
    numpy = _optional(weights, order)
    given = slope.numpy(), rest.numpy()
    how = each, can_stream(out, d)

    def work(start: int, stop: int) -> None:
        pull(*given, read, *numpy, offsets.numpy(), *how, start, stop, made, gains.numpy())

    with announce_compilation():
        parallel_ranges(work, len(slope), _least(rows * d, len(slope)))
    return out, gains


def _optional(
    weights: torch.Tensor | None, order: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    return (
        NO_WEIGHTS if weights is None else weights.numpy(),
        NO_ORDER if order is None else order.numpy(),
    )


def _least(count: int, groups: int) -> int:
    return max(1, LEAST * groups // max(1, count))


# ------------------------------------------------------------------------------ compiled
# Functions take an array and the number of its row: a row that is handed on as an array of its own
# counts its references, which takes as long as adding up a hundred numbers.


@jit_ieee
def average(
    rows, weights, order, offsets, each, unit, start, stop, means, totals, lengths
):  # fmt: skip
    rows, means = borrow(rows), borrow(means)
    lanes = np.empty(LANES, np.float32)
    for group in range(start, stop):
        scale(means, group, ZERO, True)
        total = ZERO
        for at in range(offsets[group], offsets[group + 1]):
            place = order[at] if len(order) else at
            weight = weights[place] if len(weights) else ONE
            total += weight
            if each:
                weight *= inverse(np.sqrt(dot(rows, place, rows, place, lanes)))
            add(means, group, rows, place, weight)
        scale(means, group, ONE / total, total == ZERO)
        totals[group] = total
        lengths[group] = ONE
        if unit:
            lengths[group] = np.sqrt(dot(means, group, means, group, lanes))
            scale(means, group, inverse(lengths[group]), False)


@jit_ieee
def pull(
    slope, rest, rows, weights, order, offsets, each, stream, start, stop, out, gains
):  # fmt: skip
    """The gradient by a row is its weight times the slope; for `each` only what is across the row.

    By its weight it is the slope times the row, as that is summed, less the group's `rest`.
    """
    rows, slope, out = borrow(rows), borrow(slope), borrow(out)
    lanes, memory = np.empty(LANES, np.float32), np.empty((1, slope.shape[1]), out.dtype)
    alike = not each and len(weights) == 0
    for group in range(start, stop):
        packed = borrow(memory)  # here, so that it is alive until the last group is done
        if alike:
            downhill(slope, group, ONE, packed, 0)
        for at in range(offsets[group], offsets[group + 1]):
            place = order[at] if len(order) else at
            weight = weights[place] if len(weights) else ONE
            shrink, along = ONE, ZERO
            if each:
                shrink = inverse(np.sqrt(dot(rows, place, rows, place, lanes)))
            if each or len(gains):
                along = shrink * dot(slope, group, rows, place, lanes)
            if len(gains):
                gains[place] = along - rest[group]
            if len(out) and alike and stream:
                stream_row(packed[0], out[place])
            elif len(out) and alike:
                copy(packed, out, place)
            elif len(out) and each:
                across(slope, group, rows, place, weight * shrink, along * shrink, out)
            elif len(out):
                downhill(slope, group, weight, out, place)
    store_fence()


@jit_ieee
def add(means, group, rows, place, factor):
    """One row: several at once are as many streams from memory, and take longer."""
    mean, row = means[group], rows[place]
    for i in range(len(mean)):
        mean[i] += factor * to_float(row[i])


@jit_ieee
def scale(means, group, factor, away):
    mean = means[group]
    for i in range(len(mean)):
        mean[i] = ZERO if away else mean[i] * factor


@jit_ieee
def downhill(slope, group, weight, out, place):
    down, made = slope[group], out[place]
    for i in range(len(down)):
        store_float(made, i, weight * down[i])


@jit_ieee
def across(slope, group, rows, place, factor, share, out):
    down, row, made = slope[group], rows[place], out[place]
    for i in range(len(down)):
        store_float(made, i, factor * (down[i] - share * to_float(row[i])))


@jit_ieee
def copy(packed, out, place):
    source, made = packed[0], out[place]
    for i in range(len(source)):
        made[i] = source[i]


@jit_ieee
def inverse(length):
    return ZERO if length <= SHORT else ONE / length


@jit_ieee
def dot(left, i, right, j, lanes):
    a, b = left[i], right[j]
    for k in range(LANES):
        lanes[k] = ZERO
    whole = len(a) // LANES * LANES
    for start in range(0, whole, LANES):
        some, others = a[start : start + LANES], b[start : start + LANES]
        for k in range(LANES):
            lanes[k] += to_float(some[k]) * to_float(others[k])
    for k in range(len(a) - whole):
        lanes[k] += to_float(a[whole + k]) * to_float(b[whole + k])
    total = ZERO
    for k in range(LANES):
        total += lanes[k]
    return total
