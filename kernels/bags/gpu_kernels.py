"""Triton kernels: `forward_bag`, or `forward_split` and `reduce_splits`, compute the bag loss and
`backward_split` its gradient.

A bag is `views` rows of D contiguous elements, `view_stride` apart. With S the sum of its rows
normalised to unit length and m their mean, its cosines add up to S . m/|m|. So each row is read
once, and its gradient takes two vectors of its bag: m's unit vector (unit_mean), and the gradient
through the mean (mean_grad).
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.bags import reference

EPS = tl.constexpr(reference.EPS)


@triton.jit(do_not_specialize=["views"])
def forward_bag(
    z,  # [views, bags, D], any dtype
    saved,  # [bags, 2, D] float32, written if SAVE
    losses,  # [bags] float32, written
    view_stride,
    bag_stride,
    views,
    scale,  # -1 / (views * bags)
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,  # at least D
    BLOCK_ROWS: tl.constexpr,
    STAGES: tl.constexpr,  # 3: two tiles are loaded ahead (software pipelining); 1: none
    SAVE: tl.constexpr,
):
    """Loss of a whole bag in one program.

    Reads its rows once; writes 4 bytes and, to SAVE its vectors, 8 D. 7 operations per element.
    """
    bag = tl.program_id(0).to(tl.int64)
    sums, unit_sums = _sum_rows(
        z + bag * bag_stride, view_stride, 0, views, D, BLOCK_D, BLOCK_ROWS, STAGES
    )
    unit_mean, mean_grad, cosines = _bag_vectors(sums, unit_sums, views)
    tl.store(losses + bag, cosines * scale)
    if SAVE:
        _store_pair(saved + bag * 2 * D, unit_mean, mean_grad, D, BLOCK_D)


@triton.jit(do_not_specialize=["views", "split_size"])
def forward_split(
    z,  # [views, bags, D], any dtype
    partial,  # [splits, bags, 2, D] float32, written
    view_stride,
    bag_stride,
    views,
    split_size,  # rows of a split
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,  # at least D
    BLOCK_ROWS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Sum of one split of a bag's rows, and of the rows as unit vectors (split-K).

    Used if bags are too few to keep a GPU busy. Reads the rows once; writes 8 D bytes. 7 operations
    per element.
    """
    bag, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    first = split * split_size
    last = tl.minimum(first + split_size, views)
    rows = z + bag * bag_stride
    sums, unit_sums = _sum_rows(rows, view_stride, first, last, D, BLOCK_D, BLOCK_ROWS, STAGES)
    slot = split * tl.num_programs(0).to(tl.int64) + bag
    _store_pair(partial + slot * 2 * D, sums, unit_sums, D, BLOCK_D)


@triton.jit(do_not_specialize=["views", "splits"])
def reduce_splits(
    partial,  # [splits, bags, 2, D] float32
    saved,  # [bags, 2, D] float32, written if SAVE
    losses,  # [bags] float32, written
    views,
    splits,
    scale,  # -1 / (views * bags)
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,  # at least D
    SAVE: tl.constexpr,
):
    """Reduce the splits of a bag (split-K reduction): its loss, and its vectors to SAVE.

    Reads 8 D bytes of each split; writes what `forward_bag` does.
    """
    # Sum the splits in order.
    bag = tl.program_id(0).to(tl.int64)
    sums, unit_sums = tl.zeros([BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    for split in range(0, splits):
        slot = tl.cast(split, tl.int64) * tl.num_programs(0) + bag
        split_sums, split_unit_sums = _load_pair(partial + slot * 2 * D, D, BLOCK_D)
        sums += split_sums
        unit_sums += split_unit_sums
    # Loss and vectors of the bag.
    unit_mean, mean_grad, cosines = _bag_vectors(sums, unit_sums, views)
    tl.store(losses + bag, cosines * scale)
    if SAVE:
        _store_pair(saved + bag * 2 * D, unit_mean, mean_grad, D, BLOCK_D)


@triton.jit(do_not_specialize=["views", "split_size"])
def backward_split(
    z,  # [views, bags, D], any dtype
    saved,  # [bags, 2, D] float32, read if SAVED
    grad_loss,  # [] float32
    out,  # [views, bags, D], dtype of z, written
    view_stride,
    bag_stride,
    out_view_stride,
    out_bag_stride,
    views,
    split_size,  # rows of a split
    scale,  # -1 / (views * bags)
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,  # at least D
    BLOCK_ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    SAVED: tl.constexpr,
):
    """Gradient w.r.t. one split of a bag's rows. Reads them once and writes them once.

    Unless SAVED, the split is the whole bag, which is first read once more to recompute its
    vectors: a few rows, cached the second time. 10 operations per element, or 17 unless SAVED.
    """
    bag, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * split_size
    last = tl.minimum(first + split_size, views)
    z += bag * bag_stride
    # The bag's vectors.
    if SAVED:
        unit_mean, mean_grad = _load_pair(saved + bag * 2 * D, D, BLOCK_D)
    else:
        sums, unit_sums = _sum_rows(z, view_stride, 0, views, D, BLOCK_D, BLOCK_ROWS, STAGES)
        unit_mean, mean_grad, _ = _bag_vectors(sums, unit_sums, views)
    scale *= tl.load(grad_loss).to(tl.float32)
    inner = tl.arange(0, BLOCK_D)
    for view in tl.range(first, last, BLOCK_ROWS, num_stages=STAGES):
        # Gradient of the rows' own cosines: the mean's unit vector less its projection on the row.
        tile = _load_rows(z, view_stride, view, last, D, BLOCK_D, BLOCK_ROWS)
        length = tl.sqrt(tl.sum(tile * tile, 1))
        inverse = 1 / tl.maximum(length, EPS)
        dot = tl.sum(tile * unit_mean[None, :], 1) * inverse * inverse
        projection = tl.where(length <= EPS, 0.0, dot)
        # Plus the gradient through the mean.
        grad = inverse[:, None] * (unit_mean[None, :] - projection[:, None] * tile)
        grad = grad + mean_grad[None, :]
        # Write.
        row = view + tl.arange(0, BLOCK_ROWS)
        target = out + bag * out_bag_stride + row.to(tl.int64)[:, None] * out_view_stride
        mask = (row < last)[:, None] & (inner < D)[None, :]
        tl.store(target + inner[None, :], (scale * grad).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _sum_rows(
    rows,  # [., D] at view_stride, any dtype
    view_stride,
    first,
    last,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Sum of the rows from `first` to `last`, and sum of their unit vectors."""
    sums, unit_sums = tl.zeros([BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    for view in tl.range(first, last, BLOCK_ROWS, num_stages=STAGES):
        tile = _load_rows(rows, view_stride, view, last, D, BLOCK_D, BLOCK_ROWS)
        inverse = 1 / tl.maximum(tl.sqrt(tl.sum(tile * tile, 1)), EPS)
        sums += tl.sum(tile, 0)
        unit_sums += tl.sum(tile * inverse[:, None], 0)
    return sums, unit_sums


@triton.jit
def _bag_vectors(sums, unit_sums, views):
    """unit_mean, mean_grad and the sum of cosines. Any NaN spreads to all of mean_grad."""
    mean = sums / views
    length = tl.sqrt(tl.sum(mean * mean, 0))
    divisor = tl.maximum(length, EPS)
    unit_mean = mean / divisor
    cosines = tl.sum(unit_sums * unit_mean, 0)
    projection = tl.where(length <= EPS, 0.0, cosines)
    return unit_mean, (unit_sums - projection * unit_mean) / (divisor * views), cosines


@triton.jit
def _load_rows(
    rows,  # [., D] at view_stride, any dtype
    view_stride,
    view,
    last,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """[BLOCK_ROWS, BLOCK_D] float32: rows from `view`; zeros from `last` on."""
    row, inner = view + tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_D)
    mask = (row < last)[:, None]
    if D != BLOCK_D:
        mask = mask & (inner < D)[None, :]
    source = rows + row.to(tl.int64)[:, None] * view_stride + inner[None, :]
    return tl.load(source, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store_pair(
    pair,  # [2, D] float32
    first,
    second,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write two vectors, one after the other."""
    inner = tl.arange(0, BLOCK_D)
    tl.store(pair + inner, first, mask=inner < D)
    tl.store(pair + D + inner, second, mask=inner < D)


@triton.jit
def _load_pair(
    pair,  # [2, D] float32
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Two vectors of [BLOCK_D], as `_store_pair` writes them."""
    inner = tl.arange(0, BLOCK_D)
    first = tl.load(pair + inner, mask=inner < D, other=0.0)
    return first, tl.load(pair + D + inner, mask=inner < D, other=0.0)
