"""What runs on the GPU: `whole`, or `gather` and `settle`, make the loss, `spread` its gradient.

A bag is `views` rows of D contiguous numbers, `view_step` apart. With u the sum of its rows' units
and m its mean, its cosines sum up to u . unit(m). So each row is read once, and its gradient takes
two vectors of its bag: m's unit (direction), and what turns the mean (swing).
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.bags import reference

EPS = tl.constexpr(reference.EPS)
STAGES = tl.constexpr(3)  # tiles on their way at once


@triton.jit(do_not_specialize=["views"])
def whole(
    z, kept, losses, view_step, bag_step, views, scale,
    D: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """All of a bag. Reads its rows once; writes 4 bytes and, to KEEP them, its vectors: 8 D.

    7 operations a number.
    """
    bag = tl.program_id(0).to(tl.int64)
    sums, units = _gathered(z + bag * bag_step, view_step, 0, views, D, WIDE, ROWS)
    direction, swing, cosines = _settled(sums, units, views)
    tl.store(losses + bag, cosines * scale)
    if KEEP:
        _put(kept + bag * 2 * D, direction, swing, D, WIDE)


@triton.jit(do_not_specialize=["views", "span"])
def gather(
    z, parts, view_step, bag_step, views, span,
    D: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A span of a bag's rows: their sum and that of their units. Reads them once; writes 8 D bytes.

    7 operations a number. For bags that are too few to keep a GPU busy.
    """
    bag, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    first = split * span
    last = tl.minimum(first + span, views)
    sums, units = _gathered(z + bag * bag_step, view_step, first, last, D, WIDE, ROWS)
    slot = split * tl.num_programs(0).to(tl.int64) + bag
    _put(parts + slot * 2 * D, sums, units, D, WIDE)


@triton.jit(do_not_specialize=["views", "splits"])
def settle(
    parts, kept, losses, views, splits, scale,
    D: tl.constexpr, WIDE: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """The spans of a bag put together. Reads 8 D bytes of each; writes what `whole` does."""
    bag = tl.program_id(0).to(tl.int64)
    sums, units = tl.zeros([WIDE], tl.float32), tl.zeros([WIDE], tl.float32)
    for split in range(0, splits):
        slot = tl.cast(split, tl.int64) * tl.num_programs(0) + bag
        some_sums, some_units = _got(parts + slot * 2 * D, D, WIDE)
        sums += some_sums
        units += some_units
    direction, swing, cosines = _settled(sums, units, views)
    tl.store(losses + bag, cosines * scale)
    if KEEP:
        _put(kept + bag * 2 * D, direction, swing, D, WIDE)


@triton.jit(do_not_specialize=["views", "span"])
def spread(
    z, kept, gradient, out, view_step, bag_step, out_view_step, out_bag_step, views, span, scale,
    D: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """The gradient of a span of a bag's rows. Reads them once and writes them once.

    Unless KEPT, the span is the bag, which is read once more before: a few rows, near at hand the
    second time. 10 operations a number, and then 17.
    """
    bag, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * span
    last = tl.minimum(first + span, views)
    z += bag * bag_step
    if KEPT:
        direction, swing = _got(kept + bag * 2 * D, D, WIDE)
    else:
        sums, units = _gathered(z, view_step, 0, views, D, WIDE, ROWS)
        direction, swing, _ = _settled(sums, units, views)
    scale *= tl.load(gradient).to(tl.float32)
    inner = tl.arange(0, WIDE)
    for view in tl.range(first, last, ROWS, num_stages=STAGES):
        tile = _tile(z, view_step, view, last, D, WIDE, ROWS)
        length = tl.sqrt(tl.sum(tile * tile, 1))
        inverse = 1 / tl.maximum(length, EPS)
        along = tl.sum(tile * direction[None, :], 1) * inverse * inverse
        back = tl.where(length <= EPS, 0.0, along)
        slope = inverse[:, None] * (direction[None, :] - back[:, None] * tile) + swing[None, :]
        row = view + tl.arange(0, ROWS)
        place = out + bag * out_bag_step + row.to(tl.int64)[:, None] * out_view_step
        seen = (row < last)[:, None] & (inner < D)[None, :]
        tl.store(place + inner[None, :], (scale * slope).to(out.dtype.element_ty), mask=seen)


@triton.jit
def _gathered(
    rows, view_step, first, last, D: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    sums, units = tl.zeros([WIDE], tl.float32), tl.zeros([WIDE], tl.float32)
    for view in tl.range(first, last, ROWS, num_stages=STAGES):
        tile = _tile(rows, view_step, view, last, D, WIDE, ROWS)
        inverse = 1 / tl.maximum(tl.sqrt(tl.sum(tile * tile, 1)), EPS)
        sums += tl.sum(tile, 0)
        units += tl.sum(tile * inverse[:, None], 0)
    return sums, units


@triton.jit
def _settled(sums, units, views):
    """Direction, swing and the sum of cosines. A NaN anywhere is in all of the swing."""
    mean = sums / views
    length = tl.sqrt(tl.sum(mean * mean, 0))
    longer = tl.maximum(length, EPS)
    direction = mean / longer
    cosines = tl.sum(units * direction, 0)
    along = tl.where(length <= EPS, 0.0, cosines)
    return direction, (units - along * direction) / (longer * views), cosines


@triton.jit
def _tile(rows, view_step, view, last, D: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr):
    """Rows from `view`, as float32; zeros where there are none."""
    row, inner = view + tl.arange(0, ROWS), tl.arange(0, WIDE)
    seen = (row < last)[:, None]
    if D != WIDE:
        seen = seen & (inner < D)[None, :]
    place = rows + row.to(tl.int64)[:, None] * view_step + inner[None, :]
    return tl.load(place, mask=seen, other=0.0).to(tl.float32)


@triton.jit
def _put(pair, one, other, D: tl.constexpr, WIDE: tl.constexpr):
    inner = tl.arange(0, WIDE)
    tl.store(pair + inner, one, mask=inner < D)
    tl.store(pair + D + inner, other, mask=inner < D)


@triton.jit
def _got(pair, D: tl.constexpr, WIDE: tl.constexpr):
    inner = tl.arange(0, WIDE)
    one = tl.load(pair + inner, mask=inner < D, other=0.0)
    return one, tl.load(pair + D + inner, mask=inner < D, other=0.0)
