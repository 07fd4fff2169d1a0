"""What runs on the GPU: `gather` and `settle` make the loss, `pull` and `finish` gradients.

Rows are contiguous, [count, D]. Exponents are of base 2. Weights are made 2^SHIFT times as large,
so that in float16 the usual ones, of 1 in 65536 keys, still have all their digits.
"""

from __future__ import annotations

import triton
import triton.language as tl

SHIFT = tl.constexpr(14.0)
WEIGHT = tl.constexpr(16384.0)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-1e38)  # below every logit, and yet a number: less itself it is 0


@triton.jit(
    do_not_specialize=["n_queries", "n_keys", "span", "first_split", "local", "total", "offset"]
)
def gather(
    queries, keys, peaks, sums, means, n_queries, n_keys, span, first_split, scale,
    local, total, offset,
    D: tl.constexpr, DEEP: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALONE: tl.constexpr, MEAN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A block of queries against one of the spans of the keys: its softmax, not yet divided.

    Reads each key once for each block of queries, through the L2 cache, and writes 8 bytes a query
    and span, with MEAN (which needs WIDE >= D) 4 D more. Computes 2 D operations a logit, with
    MEAN 4 D, and one exponential.
    """
    first_row, split = tl.program_id(0) * ROWS, tl.program_id(1)
    row = first_row + tl.arange(0, ROWS)
    itself = row // local * total + offset + row % local
    first = split * span
    last = tl.minimum(first + span, n_keys)
    if DEEP >= D:
        near = _tile(queries, first_row, n_queries, 0, D, DEEP, ROWS)
    if MEAN:
        mean = tl.zeros([ROWS, WIDE], tl.float32)
    peak = tl.full([ROWS], LOWEST, tl.float32)
    total_weight = tl.zeros([ROWS], tl.float32)
    for start in range(first, last, COLUMNS):
        if DEEP >= D:
            far = _tile(keys, start, last, 0, D, DEEP, COLUMNS)
            logits = tl.dot(near, tl.trans(far), input_precision=PRECISION)
        else:
            logits = _products(
                queries, first_row, n_queries, keys, start, last, D, DEEP, ROWS, COLUMNS, PRECISION
            )
        column = start + tl.arange(0, COLUMNS)
        counts = (column < last)[None, :]
        if ALONE:
            counts = counts & (column[None, :] != itself[:, None])
        logits = tl.where(counts, logits * scale, float("-inf"))
        higher = tl.maximum(peak, tl.max(logits, 1))
        shrink = tl.exp2(peak - higher)
        weights = tl.exp2(logits - (higher - SHIFT)[:, None])
        total_weight = total_weight * shrink + tl.sum(weights, 1)
        peak = higher
        if MEAN:
            if DEEP < D:
                far = _tile(keys, start, last, 0, D, WIDE, COLUMNS)
            weights = weights.to(far.dtype)
            mean = tl.dot(weights, far, mean * shrink[:, None], input_precision=PRECISION)
    slot = (first_split + split) * n_queries + row
    tl.store(peaks + slot, peak, mask=row < n_queries)
    tl.store(sums + slot, total_weight, mask=row < n_queries)
    if MEAN:
        inner = tl.arange(0, WIDE)
        place = means + slot.to(tl.int64)[:, None] * D + inner[None, :]
        tl.store(place, mean, mask=(row < n_queries)[:, None] & (inner < D)[None, :])


@triton.jit(do_not_specialize=["n_queries", "splits", "local", "total", "offset"])
def settle(
    peaks, sums, means, queries, companions, losses, lse, slope, n_queries, splits, scale, gain,
    local, total, offset,
    VIEWS: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, SPLITS: tl.constexpr,
    BUNCH: tl.constexpr, ALONE: tl.constexpr, OWN: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    """One query: its spans become one softmax, which it leaves for its positives.

    With OWN its only positive is not among the keys and is added here. Reads what `gather` wrote,
    and the positives; writes 8 bytes a query and, with MEAN, 4 D.
    """
    row = tl.program_id(0)
    inner = tl.arange(0, WIDE)
    query = tl.load(queries + row.to(tl.int64) * D + inner, mask=inner < D, other=0.0)
    target = _peers(companions, row, local, total, offset, VIEWS, D, WIDE, ALONE)
    target = target / (VIEWS - ALONE)
    aim = tl.sum(query.to(tl.float32) * target, 0) * scale

    split = tl.arange(0, SPLITS)
    slot = split * n_queries + row
    heights = tl.load(peaks + slot, mask=split < splits, other=LOWEST)
    peak = tl.max(heights, 0)
    if OWN:
        peak = tl.maximum(peak, aim)
    weights = tl.load(sums + slot, mask=split < splits, other=0.0) * (1 / WEIGHT)
    weight = tl.sum(weights * tl.exp2(heights - peak), 0)
    if OWN:
        weight += tl.exp2(aim - peak)
    tl.store(losses + row, ((peak - aim) + tl.log2(weight)) * LN_2)
    tl.store(lse + row, (peak + tl.log2(weight)) * LN_2)
    if MEAN:
        mean = tl.zeros([WIDE], tl.float32)
        for first in range(0, splits, BUNCH):
            some = first + tl.arange(0, BUNCH)
            height = tl.load(peaks + some * n_queries + row, mask=some < splits, other=LOWEST)
            share = tl.exp2(height - peak) * (1 / WEIGHT)
            part = _bunch(means, first, splits, n_queries, row, D, WIDE, BUNCH)
            mean += tl.sum(share[:, None] * part, 0)
        if OWN:
            mean += tl.exp2(aim - peak) * target
        place = slope + row.to(tl.int64) * D + inner
        tl.store(place, (mean / weight - target) * gain, mask=inner < D)


@triton.jit(do_not_specialize=["n_rows", "n_columns", "span", "local", "total", "offset"])
def pull(
    rows, columns, row_lse, column_lse, out, n_rows, n_columns, span, scale,
    local, total, offset,
    D: tl.constexpr, DEEP: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BY_ROW: tl.constexpr, BY_COLUMN: tl.constexpr,
    ALONE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For a block of rows the sum of a span of columns, each by its chance: WIDE numbers of it.

    What has log-denominators are queries: rows (BY_ROW), columns (BY_COLUMN) or, where queries are
    their own companions, both. Reads each column once for each block of rows, through the L2
    cache; computes 4 D operations a logit and an exponential for each BY, and the logits anew for
    every WIDE numbers of D.
    """
    first_row, split, left = tl.program_id(0) * ROWS, tl.program_id(1), tl.program_id(2) * WIDE
    row = first_row + tl.arange(0, ROWS)
    row_key = row // local * total + offset + row % local if BY_ROW else row
    first = split * span
    last = tl.minimum(first + span, n_columns)
    if BY_ROW:
        row_level = tl.load(row_lse + row, mask=row < n_rows, other=0.0) * LOG2_E - SHIFT
    if DEEP >= D:
        near = _tile(rows, first_row, n_rows, 0, D, DEEP, ROWS)
    pulled = tl.zeros([ROWS, WIDE], tl.float32)
    for start in range(first, last, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        if DEEP >= D:
            far = _tile(columns, start, last, 0, D, DEEP, COLUMNS)
            logits = tl.dot(near, tl.trans(far), input_precision=PRECISION)
        else:
            logits = _products(
                rows, first_row, n_rows, columns, start, last, D, DEEP, ROWS, COLUMNS, PRECISION
            )
            far = _tile(columns, start, last, left, D, WIDE, COLUMNS)
        weights = tl.zeros([ROWS, COLUMNS], tl.float32)
        if BY_ROW:
            weights += tl.exp2(logits * scale - row_level[:, None])
        if BY_COLUMN:
            level = tl.load(column_lse + column, mask=column < last, other=0.0) * LOG2_E - SHIFT
            weights += tl.exp2(logits * scale - level[None, :])
        counts = (column < last)[None, :]
        if ALONE:
            column_key = column
            if BY_COLUMN:
                column_key = column // local * total + offset + column % local
            counts = counts & (row_key[:, None] != column_key[None, :])
        weights = tl.where(counts, weights, 0.0).to(far.dtype)
        pulled = tl.dot(weights, far, pulled, input_precision=PRECISION)
    inner = left + tl.arange(0, WIDE)
    slot = (tl.cast(split, tl.int64) * n_rows + row)[:, None] * D
    seen = (row < n_rows)[:, None] & (inner < D)[None, :]
    tl.store(out + slot + inner[None, :], pulled, mask=seen)


@triton.jit(do_not_specialize=["n_rows", "splits", "near", "far", "shift"])
def finish(
    pulled, rows, peers, lse, gradient, out, n_rows, splits, scale, gain, pay, near, far, shift,
    VIEWS: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, BUNCH: tl.constexpr,
    ALONE: tl.constexpr, PEERS: tl.constexpr, OWN: tl.constexpr,
):  # fmt: skip
    """One row of a gradient: what `pull` summed, less `pay` for each positive.

    With OWN the only positive was not among the columns and pulls too. Reads what `pull` wrote,
    and the positives; writes the row.
    """
    row = tl.program_id(0)
    inner = tl.arange(0, WIDE)
    place = row.to(tl.int64) * D + inner
    found = tl.zeros([WIDE], tl.float32)
    for first in range(0, splits, BUNCH):
        found += tl.sum(_bunch(pulled, first, splits, n_rows, row, D, WIDE, BUNCH), 0)
    found = found * (1 / WEIGHT)
    if PEERS:
        peer = _peers(peers, row, near, far, shift, VIEWS, D, WIDE, ALONE)
        weight = -pay
        if OWN:
            own = tl.load(rows + place, mask=inner < D, other=0.0).to(tl.float32)
            aim = tl.sum(own * peer, 0) * scale
            weight += tl.exp2(aim - tl.load(lse + row) * LOG2_E)
        found += weight * peer
    if gradient is not None:
        gain = gain * tl.load(gradient).to(tl.float32)
    tl.store(out + place, (found * gain).to(out.dtype.element_ty), mask=inner < D)


@triton.jit
def _bunch(
    parts, first, splits, count, row, D: tl.constexpr, WIDE: tl.constexpr, BUNCH: tl.constexpr
):  # fmt: skip
    """[BUNCH, WIDE]: one row of [splits, count, D], of several splits, as one wait for memory."""
    split, inner = first + tl.arange(0, BUNCH), tl.arange(0, WIDE)
    place = (split.to(tl.int64) * count + row)[:, None] * D + inner[None, :]
    seen = (split < splits)[:, None] & (inner < D)[None, :]
    return tl.load(parts + place, mask=seen, other=0.0)


@triton.jit
def _peers(
    peers, row, near, far, shift,
    VIEWS: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, ALONE: tl.constexpr,
):  # fmt: skip
    """The sum of the rows of [VIEWS, far] that show the image of a row of [VIEWS, near].

    Image b of the one is image b + shift of the other, if it is there; ALONE: in other views.
    """
    view, image = row // near, row % near + shift
    there = tl.where((image >= 0) & (image < far), D, 0)
    inner = tl.arange(0, WIDE)
    found = tl.zeros([WIDE], tl.float32)
    for other in range(VIEWS):
        length = there
        if ALONE:
            length = tl.where(view == other, 0, there)
        place = peers + (tl.cast(other, tl.int64) * far + image) * D + inner
        found += tl.load(place, mask=inner < length, other=0.0).to(tl.float32)
    return found


@triton.jit
def _products(
    rows, first_row, n_rows, columns, first_column, n_columns,
    D: tl.constexpr, DEEP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    found = tl.zeros([ROWS, COLUMNS], tl.float32)
    for left in range(0, D, DEEP):
        near = _tile(rows, first_row, n_rows, left, D, DEEP, ROWS)
        far = _tile(columns, first_column, n_columns, left, D, DEEP, COLUMNS)
        found = tl.dot(near, tl.trans(far), found, input_precision=PRECISION)
    return found


@triton.jit
def _tile(
    base, first, count, left, D: tl.constexpr, WIDE: tl.constexpr, LONG: tl.constexpr
):  # fmt: skip
    """Rows from `first`, columns from `left`; zeros where there are none."""
    step, inner = tl.arange(0, LONG), left + tl.arange(0, WIDE)
    seen = (first + step < count)[:, None]
    if D % WIDE:
        seen = seen & (inner < D)[None, :]
    start = base + tl.cast(first, tl.int64) * D
    return tl.load(start + step[:, None] * D + inner[None, :], mask=seen, other=0.0)
