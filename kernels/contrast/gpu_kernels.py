"""Triton kernels: `forward_split` and `reduce_splits` compute the loss, `backward_split` and
`reduce_gradient` its gradients.

The long dimension of every softmax or sum is split over programs (split-K) and the partial results
are reduced by a second kernel in a fixed order: no atomics, so two runs are bit-identical.

Matrices are contiguous, [count, D]. Exponentials are base 2: logits are multiplied by log2(e).
Softmax weights are scaled by 2^SHIFT before they are rounded to the inputs' dtype, so that in
float16 the usual ones, 1 in 65536 keys, keep all their digits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.common.triton import load_tile

SHIFT = tl.constexpr(14.0)
WEIGHT_SCALE = tl.constexpr(16384.0)  # 2^SHIFT
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-1e38)  # below every logit, yet finite: LOWEST - LOWEST is 0


@triton.jit(
    do_not_specialize=[
        "n_queries",
        "n_keys",
        "split_size",
        "first_split",
        "local",
        "total",
        "offset",
    ]
)
def forward_split(
    queries,  # [n_queries, D], inputs' dtype
    keys,  # [n_keys, D], inputs' dtype
    row_maxima,  # [splits, n_queries] float32, written
    row_sums,  # [splits, n_queries] float32, written
    weighted_keys,  # [splits, n_queries, D] float32, written if WITH_GRAD
    n_queries,
    n_keys,
    split_size,  # keys of a split
    first_split,  # where this set of keys begins among all splits
    scale,  # log2(e) / temperature
    local,
    total,
    offset,  # of `Pairing`, to find a query among the keys
    D: tl.constexpr,
    BLOCK_K: tl.constexpr,  # columns multiplied at a time
    BLOCK_D: tl.constexpr,  # columns accumulated; at least D if WITH_GRAD
    BLOCK_M: tl.constexpr,  # queries
    BLOCK_N: tl.constexpr,  # keys at a time
    EXCLUDE_SELF: tl.constexpr,
    WITH_GRAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Online softmax of a block of queries over one split of the keys (split-K), unnormalised.

    Like flash attention with the keys as values: with WITH_GRAD the softmax-weighted sum of the
    keys is accumulated too, and rescaled whenever a row's maximum grows. Reads each key once for
    each block of queries, through the L2 cache; writes 8 bytes per query and split, with WITH_GRAD
    4 D more. Computes 2 D operations per logit, with WITH_GRAD 4 D, and one exponential.
    """
    # This program's queries, their own rows among the keys, and its keys.
    first_row, split = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    row = first_row + tl.arange(0, BLOCK_M)
    self_column = row // local * total + offset + row % local
    first = split * split_size
    last = tl.minimum(first + split_size, n_keys)
    # Whole query rows stay in registers if they fit.
    if BLOCK_K >= D:
        query_tile = load_tile(queries, first_row, n_queries, 0, D, BLOCK_K, BLOCK_M)
    if WITH_GRAD:
        weighted = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    row_max = tl.full([BLOCK_M], LOWEST, tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    for start in range(first, last, BLOCK_N):
        # Logits of one block of keys.
        if BLOCK_K >= D:
            key_tile = load_tile(keys, start, last, 0, D, BLOCK_K, BLOCK_N)
            logits = tl.dot(query_tile, tl.trans(key_tile), input_precision=PRECISION)
        else:
            logits = _products(
                queries, first_row, n_queries, keys, start, last,
                D, BLOCK_K, BLOCK_M, BLOCK_N, PRECISION,
            )  # fmt: skip
        # Masks: keys beyond the split, and the query itself.
        column = start + tl.arange(0, BLOCK_N)
        mask = (column < last)[None, :]
        if EXCLUDE_SELF:
            mask = mask & (column[None, :] != self_column[:, None])
        logits = tl.where(mask, logits * scale, float("-inf"))
        # Online softmax: rescale the sums so far to the new maximum.
        new_max = tl.maximum(row_max, tl.max(logits, 1))
        rescale = tl.exp2(row_max - new_max)
        weights = tl.exp2(logits - (new_max - SHIFT)[:, None])
        row_sum = row_sum * rescale + tl.sum(weights, 1)
        row_max = new_max
        # Softmax-weighted keys.
        if WITH_GRAD:
            if BLOCK_K < D:
                key_tile = load_tile(keys, start, last, 0, D, BLOCK_D, BLOCK_N)
            weights = weights.to(key_tile.dtype)
            weighted = tl.dot(
                weights, key_tile, weighted * rescale[:, None], input_precision=PRECISION
            )
    # Write this split's partial results.
    slot = (first_split + split) * n_queries + row
    tl.store(row_maxima + slot, row_max, mask=row < n_queries)
    tl.store(row_sums + slot, row_sum, mask=row < n_queries)
    if WITH_GRAD:
        inner = tl.arange(0, BLOCK_D)
        target = weighted_keys + slot.to(tl.int64)[:, None] * D + inner[None, :]
        tl.store(target, weighted, mask=(row < n_queries)[:, None] & (inner < D)[None, :])


@triton.jit(do_not_specialize=["n_queries", "splits", "local", "total", "offset"])
def reduce_splits(
    row_maxima,  # [splits, n_queries] float32
    row_sums,  # [splits, n_queries] float32
    weighted_keys,  # [splits, n_queries, D] float32, read if WITH_GRAD
    queries,  # [n_queries, D], inputs' dtype
    batch_keys,  # [VIEWS * total, D], inputs' dtype: the positives
    losses,  # [n_queries] float32, written
    lse,  # [n_queries] float32, written
    grad_queries,  # [n_queries, D] float32, written if WITH_GRAD
    n_queries,
    splits,
    scale,  # log2(e) / temperature
    grad_scale,  # 1 / (n_queries * temperature)
    local,
    total,
    offset,  # of `Pairing`
    VIEWS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,  # at least D
    BLOCK_SPLITS: tl.constexpr,  # at least `splits`
    UNROLL: tl.constexpr,  # splits read at a time
    EXCLUDE_SELF: tl.constexpr,
    ADD_POSITIVE: tl.constexpr,
    WITH_GRAD: tl.constexpr,
):
    """Reduce the splits of one query (split-K reduction): its loss, log-sum-exp and gradient.

    With ADD_POSITIVE the only positive is not among the keys and joins the softmax here. Reads what
    `forward_split` wrote, and the positives; writes 8 bytes per query and, with WITH_GRAD, 4 D.
    """
    # Mean of the positives, and its logit.
    row = tl.program_id(0)
    inner = tl.arange(0, BLOCK_D)
    query = tl.load(queries + row.to(tl.int64) * D + inner, mask=inner < D, other=0.0)
    positive = _sum_same_image(
        batch_keys, row, local, total, offset, VIEWS, D, BLOCK_D, EXCLUDE_SELF
    )
    positive = positive / (VIEWS - EXCLUDE_SELF)
    positive_logit = tl.sum(query.to(tl.float32) * positive, 0) * scale

    # Log-sum-exp over the splits.
    split = tl.arange(0, BLOCK_SPLITS)
    slot = split * n_queries + row
    maxima = tl.load(row_maxima + slot, mask=split < splits, other=LOWEST)
    row_max = tl.max(maxima, 0)
    if ADD_POSITIVE:
        row_max = tl.maximum(row_max, positive_logit)
    sums = tl.load(row_sums + slot, mask=split < splits, other=0.0) * (1 / WEIGHT_SCALE)
    row_sum = tl.sum(sums * tl.exp2(maxima - row_max), 0)
    if ADD_POSITIVE:
        row_sum += tl.exp2(positive_logit - row_max)
    tl.store(losses + row, ((row_max - positive_logit) + tl.log2(row_sum)) * LN_2)
    tl.store(lse + row, (row_max + tl.log2(row_sum)) * LN_2)

    # Gradient w.r.t. the query: softmax-weighted mean of the keys, less the mean positive.
    if WITH_GRAD:
        mean = tl.zeros([BLOCK_D], tl.float32)
        for first in range(0, splits, UNROLL):
            some = first + tl.arange(0, UNROLL)
            maximum = tl.load(row_maxima + some * n_queries + row, mask=some < splits, other=LOWEST)
            rescale = tl.exp2(maximum - row_max) * (1 / WEIGHT_SCALE)
            part = _load_splits(weighted_keys, first, splits, n_queries, row, D, BLOCK_D, UNROLL)
            mean += tl.sum(rescale[:, None] * part, 0)
        if ADD_POSITIVE:
            mean += tl.exp2(positive_logit - row_max) * positive
        target = grad_queries + row.to(tl.int64) * D + inner
        tl.store(target, (mean / row_sum - positive) * grad_scale, mask=inner < D)


@triton.jit(do_not_specialize=["n_rows", "n_columns", "split_size", "local", "total", "offset"])
def backward_split(
    rows,  # [n_rows, D], inputs' dtype: the gradient is w.r.t. these
    columns,  # [n_columns, D], inputs' dtype
    row_lse,  # [n_rows] float32 if ROW_QUERIES, else None
    column_lse,  # [n_columns] float32 if COLUMN_QUERIES, else None
    out,  # [splits, n_rows, D] float32, written
    n_rows,
    n_columns,
    split_size,  # columns of a split
    scale,  # log2(e) / temperature
    local,
    total,
    offset,  # of `Pairing`, to find a query among the keys
    D: tl.constexpr,
    BLOCK_K: tl.constexpr,  # elements of a row multiplied at a time
    BLOCK_D: tl.constexpr,  # elements of a row accumulated
    BLOCK_M: tl.constexpr,  # rows
    BLOCK_N: tl.constexpr,  # columns at a time
    ROW_QUERIES: tl.constexpr,
    COLUMN_QUERIES: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Softmax-weighted sum of one split of the columns for a block of rows: BLOCK_D elements of it.

    Each side with a log-sum-exp is queries: the rows (ROW_QUERIES), the columns (COLUMN_QUERIES)
    or, if queries are their own keys, both. Logits are recomputed, as in flash attention's backward
    pass, for every BLOCK_D of the D elements. Reads each column once for each block
    of rows, through the L2 cache; computes 4 D operations per logit and one exponential for each
    side that are queries.
    """
    # This program's rows, their indices among the keys, and its columns.
    first_row, split = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    left = tl.program_id(2) * BLOCK_D
    row = first_row + tl.arange(0, BLOCK_M)
    row_key = row // local * total + offset + row % local if ROW_QUERIES else row
    first = split * split_size
    last = tl.minimum(first + split_size, n_columns)
    # Kept in registers: log-sum-exp of the rows, whole rows if they fit.
    if ROW_QUERIES:
        row_level = tl.load(row_lse + row, mask=row < n_rows, other=0.0) * LOG2_E - SHIFT
    if BLOCK_K >= D:
        row_tile = load_tile(rows, first_row, n_rows, 0, D, BLOCK_K, BLOCK_M)
    accumulated = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(first, last, BLOCK_N):
        # Logits of one block of columns.
        column = start + tl.arange(0, BLOCK_N)
        if BLOCK_K >= D:
            column_tile = load_tile(columns, start, last, 0, D, BLOCK_K, BLOCK_N)
            logits = tl.dot(row_tile, tl.trans(column_tile), input_precision=PRECISION)
        else:
            logits = _products(
                rows, first_row, n_rows, columns, start, last,
                D, BLOCK_K, BLOCK_M, BLOCK_N, PRECISION,
            )  # fmt: skip
            column_tile = load_tile(columns, start, last, left, D, BLOCK_D, BLOCK_N)
        # Softmax weights, for each side that is queries.
        weights = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        if ROW_QUERIES:
            weights += tl.exp2(logits * scale - row_level[:, None])
        if COLUMN_QUERIES:
            level = tl.load(column_lse + column, mask=column < last, other=0.0) * LOG2_E - SHIFT
            weights += tl.exp2(logits * scale - level[None, :])
        # Masks: columns beyond the split, and the query itself.
        mask = (column < last)[None, :]
        if EXCLUDE_SELF:
            column_key = column
            if COLUMN_QUERIES:
                column_key = column // local * total + offset + column % local
            mask = mask & (row_key[:, None] != column_key[None, :])
        weights = tl.where(mask, weights, 0.0).to(column_tile.dtype)
        accumulated = tl.dot(weights, column_tile, accumulated, input_precision=PRECISION)
    # Write this split's partial sum.
    inner = left + tl.arange(0, BLOCK_D)
    slot = (tl.cast(split, tl.int64) * n_rows + row)[:, None] * D
    mask = (row < n_rows)[:, None] & (inner < D)[None, :]
    tl.store(out + slot + inner[None, :], accumulated, mask=mask)


@triton.jit(do_not_specialize=["n_rows", "splits", "local", "total", "offset"])
def reduce_gradient(
    partial_sums,  # [splits, n_rows, D] float32: `out` of `backward_split`
    rows,  # [n_rows, D], inputs' dtype
    others,  # [VIEWS * total, D], inputs' dtype: rows of the other role
    lse,  # [n_rows] float32, read if ADD_POSITIVE
    grad_loss,  # [] float32, or None for 1
    out,  # [n_rows, D], written
    n_rows,
    splits,
    scale,  # log2(e) / temperature
    grad_scale,  # 1 / (queries * temperature)
    positive_weight,  # subtracted for each positive
    local,
    total,
    offset,  # `rows` are [VIEWS, local] images; image b is image b + offset of the others
    VIEWS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,  # at least D
    UNROLL: tl.constexpr,  # splits read at a time
    EXCLUDE_SELF: tl.constexpr,
    SUBTRACT_POSITIVES: tl.constexpr,
    ADD_POSITIVE: tl.constexpr,
):
    """Reduce one row of a gradient over its splits, and subtract its positives.

    With ADD_POSITIVE the only positive was not among the columns: its softmax weight is added.
    Reads what `backward_split` wrote, and the positives; writes the row.
    """
    # Sum over the splits.
    row = tl.program_id(0)
    inner = tl.arange(0, BLOCK_D)
    place = row.to(tl.int64) * D + inner
    grad = tl.zeros([BLOCK_D], tl.float32)
    for first in range(0, splits, UNROLL):
        grad += tl.sum(
            _load_splits(partial_sums, first, splits, n_rows, row, D, BLOCK_D, UNROLL), 0
        )
    grad = grad * (1 / WEIGHT_SCALE)
    # Positives.
    if SUBTRACT_POSITIVES:
        positives = _sum_same_image(
            others, row, local, total, offset, VIEWS, D, BLOCK_D, EXCLUDE_SELF
        )
        weight = -positive_weight
        if ADD_POSITIVE:
            own = tl.load(rows + place, mask=inner < D, other=0.0).to(tl.float32)
            positive_logit = tl.sum(own * positives, 0) * scale
            weight += tl.exp2(positive_logit - tl.load(lse + row) * LOG2_E)
        grad += weight * positives
    # Scale by the incoming gradient and write.
    if grad_loss is not None:
        grad_scale = grad_scale * tl.load(grad_loss).to(tl.float32)
    tl.store(out + place, (grad * grad_scale).to(out.dtype.element_ty), mask=inner < D)


@triton.jit
def _load_splits(
    parts,  # [splits, count, D] float32
    first,
    splits,
    count,
    row,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """[UNROLL, BLOCK_D]: one row in UNROLL splits from `first`; independent loads in flight."""
    split, inner = first + tl.arange(0, UNROLL), tl.arange(0, BLOCK_D)
    place = (split.to(tl.int64) * count + row)[:, None] * D + inner[None, :]
    mask = (split < splits)[:, None] & (inner < D)[None, :]
    return tl.load(parts + place, mask=mask, other=0.0)


@triton.jit
def _sum_same_image(
    others,  # [VIEWS * total, D]
    row,
    local,
    total,
    offset,
    VIEWS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
):
    """Sum of the rows of `others` that show the image of `row`, which is one of [VIEWS * local].

    Image b of the rows is image b + offset of the others, if there is one. EXCLUDE_SELF excludes
    the row's own view.
    """
    view, image = row // local, row % local + offset
    valid = tl.where((image >= 0) & (image < total), D, 0)
    inner = tl.arange(0, BLOCK_D)
    result = tl.zeros([BLOCK_D], tl.float32)
    for other in range(VIEWS):
        length = valid
        if EXCLUDE_SELF:
            length = tl.where(view == other, 0, valid)
        place = others + (tl.cast(other, tl.int64) * total + image) * D + inner
        result += tl.load(place, mask=inner < length, other=0.0).to(tl.float32)
    return result


@triton.jit
def _products(
    rows,  # [n_rows, D]
    first_row,
    n_rows,
    columns,  # [n_columns, D]
    first_column,
    n_columns,
    D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """[BLOCK_M, BLOCK_N]: rows @ columns.T, BLOCK_K elements of each at a time."""
    result = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for left in range(0, D, BLOCK_K):
        row_tile = load_tile(rows, first_row, n_rows, left, D, BLOCK_K, BLOCK_M)
        column_tile = load_tile(columns, first_column, n_columns, left, D, BLOCK_K, BLOCK_N)
        result = tl.dot(row_tile, tl.trans(column_tile), result, input_precision=PRECISION)
    return result
