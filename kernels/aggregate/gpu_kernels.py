"""Triton kernels of segmented reduction: `forward_split` and `reduce_splits` compute segment means,
`backward_split` their gradients.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.aggregate import reference

EPS = tl.constexpr(reference.EPS)


@triton.jit(do_not_specialize=["segments", "splits"])
def forward_split(
    rows,  # [P, D], any dtype
    weights,  # [P] float32, or None
    offsets,  # [segments + 1] int64
    order,  # [P] int64: rows sorted by segment, or None if they already are
    means,  # [segments, D] float32 if ONE_SPLIT, else sums [splits, segments, D]; written
    totals,  # [segments] float32 if ONE_SPLIT, else [splits, segments]; written
    lengths,  # [segments] float32, written if ONE_SPLIT
    segments,
    splits,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,  # at least D
    BLOCK_ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    UNIT_ROWS: tl.constexpr,
    UNIT_MEAN: tl.constexpr,
    ONE_SPLIT: tl.constexpr,
):
    """Weighted sum of one of `splits` equal parts of a segment's rows (split-K); if it is the only
    one, their mean.

    Reads the rows once, plus 8 bytes of the order and 4 of the weight per row. One multiply-add per
    element, or two for UNIT_ROWS. Writes 4 D bytes.
    """
    segment, split = tl.program_id(0) // splits, tl.program_id(0) % splits
    first, begin, stop = _split_range(offsets, segment, split, splits)
    inner = tl.arange(0, BLOCK_D)
    sums, total = tl.zeros([BLOCK_ROWS, BLOCK_D], tl.float32), tl.zeros([BLOCK_ROWS], tl.float32)
    for at in tl.range(begin, stop, BLOCK_ROWS, num_stages=STAGES):
        # A tile of rows and their weights.
        row, exists = _row_numbers(order, first, at, stop, BLOCK_ROWS)
        value = tl.load(
            rows + row[:, None] * D + inner[None, :], _tile_mask(exists, inner, D, BLOCK_D), 0
        ).to(tl.float32)
        weight = exists.to(tl.float32)
        if weights is not None:
            weight = tl.load(weights + row, mask=exists, other=0)
        total += weight
        # Accumulate their weighted sum, separately for each row of the tile.
        if UNIT_ROWS:
            weight = weight * _inverse_length(tl.sqrt_rn(tl.sum(value * value, 1)))
        sums += value * weight[:, None]
    # Reduce the tile, write the mean or the partial sum.
    segment_sum, segment_total = tl.sum(sums, 0), tl.sum(total, 0)
    if ONE_SPLIT:
        _store_mean(
            segment_sum, segment_total, means, totals, lengths, segment, inner, D, UNIT_MEAN
        )
    else:
        slot = tl.cast(split, tl.int64) * segments + segment
        tl.store(means + slot * D + inner, segment_sum, mask=inner < D)
        tl.store(totals + slot, segment_total)


@triton.jit(do_not_specialize=["segments", "splits"])
def reduce_splits(
    split_sums,  # [splits, segments, D] float32
    split_totals,  # [splits, segments] float32
    means,  # [segments, D] float32, written
    totals,  # [segments] float32, written
    lengths,  # [segments] float32, written
    segments,
    splits,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,  # at least D
    UNIT_MEAN: tl.constexpr,
):
    """Reduce the splits of one segment in order (split-K reduction) to its mean."""
    segment, inner = tl.program_id(0), tl.arange(0, BLOCK_D)
    segment_sum, segment_total = tl.zeros([BLOCK_D], tl.float32), 0.0
    for split in range(0, splits):
        slot = tl.cast(split, tl.int64) * segments + segment
        segment_sum += tl.load(split_sums + slot * D + inner, mask=inner < D, other=0)
        segment_total += tl.load(split_totals + slot)
    _store_mean(segment_sum, segment_total, means, totals, lengths, segment, inner, D, UNIT_MEAN)


@triton.jit
def _store_mean(
    segment_sum,  # [BLOCK_D]
    segment_total,
    means,  # [segments, D] float32, written
    totals,  # [segments] float32, written
    lengths,  # [segments] float32, written
    segment,
    inner,
    D: tl.constexpr,
    UNIT_MEAN: tl.constexpr,
):
    """Write a segment's mean, the sum of its weights, and the mean's length before UNIT_MEAN."""
    mean = tl.where(segment_total == 0, 0.0, segment_sum / segment_total)
    length = 1.0
    if UNIT_MEAN:
        length = tl.sqrt_rn(tl.sum(mean * mean, 0))
        mean = mean * _inverse_length(length)
    place = tl.cast(segment, tl.int64) * D
    tl.store(means + place + inner, mean, mask=inner < D)
    tl.store(totals + segment, segment_total)
    tl.store(lengths + segment, length)


@triton.jit(do_not_specialize=["splits"])
def backward_split(
    grad_sums,  # [segments, D] float32: gradient w.r.t. each segment's weighted sum
    grad_dot_mean,  # [segments] float32: its dot product with the mean
    rows,  # [P, D], any dtype
    weights,  # [P] float32, or None
    offsets,  # [segments + 1] int64
    order,  # [P] int64, or None
    grad_rows,  # [P, D], dtype of the rows, written; or None
    grad_weights,  # [P] float32, written; or None
    splits,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,  # at least D
    BLOCK_ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    UNIT_ROWS: tl.constexpr,
):
    """Gradients w.r.t. one of `splits` equal parts of a segment's rows, and w.r.t. their weights.

    Reads the rows, for UNIT_ROWS and grad_weights, and writes as many bytes; also reads 8 bytes of
    the order and 4 of the weight per row. At most four multiply-adds per element.
    """
    segment, split = tl.program_id(0) // splits, tl.program_id(0) % splits
    first, begin, stop = _split_range(offsets, segment, split, splits)
    inner = tl.arange(0, BLOCK_D)
    grad_sum = tl.load(grad_sums + tl.cast(segment, tl.int64) * D + inner, mask=inner < D, other=0)[
        None, :
    ]
    for at in tl.range(begin, stop, BLOCK_ROWS, num_stages=STAGES):
        # Weights of a tile of rows.
        row, exists = _row_numbers(order, first, at, stop, BLOCK_ROWS)
        place, mask = row[:, None] * D + inner[None, :], _tile_mask(exists, inner, D, BLOCK_D)
        weight = exists.to(tl.float32)
        if weights is not None:
            weight = tl.load(weights + row, mask=exists, other=0)
        grad = weight[:, None] * grad_sum
        if UNIT_ROWS or grad_weights is not None:
            value = tl.load(rows + place, mask, 0).to(tl.float32)
            projection = tl.sum(value * grad_sum, 1)
            # For unit rows only the part orthogonal to the row, divided by its length.
            if UNIT_ROWS:
                inverse = _inverse_length(tl.sqrt_rn(tl.sum(value * value, 1)))
                projection = projection * inverse
                orthogonal = grad_sum - (projection * inverse)[:, None] * value
                grad = (weight * inverse)[:, None] * orthogonal
            if grad_weights is not None:
                by_weight = projection - tl.load(grad_dot_mean + segment)
                tl.store(grad_weights + row, by_weight, mask=exists)
        if grad_rows is not None:
            tl.store(grad_rows + place, grad.to(grad_rows.dtype.element_ty), mask=mask)


@triton.jit
def _split_range(
    offsets,  # [segments + 1] int64
    segment,
    split,
    splits,
):
    """The segment's first row, and this split's range among the segment's rows."""
    first = tl.load(offsets + segment)
    count = (tl.load(offsets + segment + 1) - first).to(tl.int32)
    length = tl.cdiv(count, splits)
    begin = tl.minimum(split * length, count)
    return first, begin, tl.minimum(begin + length, count)


@triton.jit
def _row_numbers(
    order,  # [P] int64, or None
    first,
    at,
    stop,
    BLOCK_ROWS: tl.constexpr,
):
    """[BLOCK_ROWS] indices of a segment's rows from `at`, and a mask of those that exist."""
    step = at + tl.arange(0, BLOCK_ROWS)
    exists = step < stop
    row = first + step
    if order is not None:
        row = tl.load(order + row, mask=exists, other=0)
    return row, exists


@triton.jit
def _tile_mask(exists, inner, D: tl.constexpr, BLOCK_D: tl.constexpr):
    mask = exists[:, None]
    if D != BLOCK_D:
        mask = mask & (inner < D)[None, :]
    return mask


@triton.jit
def _inverse_length(length):
    return tl.where(length <= EPS, 0.0, 1 / length)
