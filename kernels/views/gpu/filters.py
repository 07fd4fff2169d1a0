"""`weigh` pass on the GPU: the resize filters' weights, once for all tiles of a row or a column.

Tiles in a row share their vertical weights, tiles in a column their horizontal ones. A record in a
workspace holds what a tile needs along one axis: the range of source pixels, the weights in
float16, and a scale per pixel that corrects the sum of its rounded weights, so that constant images
stay constant.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views.gpu import fields
from patchmill.kernels.views.gpu.footprint import FAR, MIN_TOTAL, footprint
from patchmill.kernels.views.gpu.pixels import BYTE_UNIT

STEP = tl.constexpr(32)  # records hold weights for a multiple of these source pixels
ROWS = tl.constexpr(16)  # vertical weights are stored in groups of this many source rows, by pixel
UNIT = tl.constexpr(8)  # float16 elements: unit of record offsets and sizes
HEADER = tl.constexpr(8)  # float16 elements that the range takes: two int32 and padding

# Fields of the filter table [rows, FILTER_FIELDS] int32, built by `tables.filter_table`: for each
# axis, the offset of the first record and the size of a record, both in UNITs.
FILTER_FIELDS = tl.constexpr(4)
VERTICAL, HORIZONTAL = tl.constexpr(0), tl.constexpr(2)


@triton.jit(do_not_specialize=["n_groups", "n_views", "blocks_per_image"])
def weigh(
    filter_table,  # [batch * n_views, FILTER_FIELDS] int32
    weights,  # float16: records
    rows,  # [batch, n_views, FIELDS] int32
    slots,  # [n_views, SLOT_WORDS] int64
    groups,  # [n_groups, 3] int32
    n_groups, n_views, blocks_per_image,
    BICUBIC: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The weights of TILE rows, or of TILE columns, of a view.

    Writes 2 bytes and computes about 12 operations per weight. For downscaling by s >= 1, the
    pixels of a tile have up to TILE s + 4 s + 2 weights each, and at most the box's side.
    """
    block = tl.program_id(0)
    sample = block // blocks_per_image
    view, tile, _ = fields.locate_block(groups, n_groups, block % blocks_per_image)
    index = sample * n_views + view
    row = rows + index * fields.FIELDS
    _, _, size, _ = fields.load_slot(slots, view, sample, 0, False)
    flip, turns = tl.load(row + fields.FLIP) != 0, tl.load(row + fields.TURNS) & 3
    # Reversed as `resize` needs it.
    bands = tl.cdiv(size, TILE)
    if tile < bands:
        _weigh_tile(
            find_record(filter_table, weights, index, VERTICAL, tile, TILE),
            tl.load(row + fields.BOX_H), tl.load(row + fields.FULL_H), tl.load(row + fields.WIN_Y),
            tile * TILE, size, turns >= 2, VERTICAL, BICUBIC, TILE,
        )  # fmt: skip
    else:
        tile -= bands
        _weigh_tile(
            find_record(filter_table, weights, index, HORIZONTAL, tile, TILE),
            tl.load(row + fields.BOX_W), tl.load(row + fields.FULL_W), tl.load(row + fields.WIN_X),
            tile * TILE, size, flip != ((turns == 1) | (turns == 2)), HORIZONTAL, BICUBIC, TILE,
        )  # fmt: skip


@triton.jit
def find_record(
    filter_table,  # [batch * n_views, FILTER_FIELDS] int32
    weights,  # float16: records
    index,
    axis: tl.constexpr,
    tile,
    TILE: tl.constexpr,
):  # fmt: skip
    """Address of a tile's record, the `tile`-th of a view along an axis."""
    entry = filter_table + index * FILTER_FIELDS + axis
    size = tl.load(entry + 1)
    record = weights + (tl.load(entry) + tile * size).to(tl.int64) * UNIT
    return tl.multiple_of(record, 16)


@triton.jit
def load_range(
    record,  # float16
):  # fmt: skip
    """First source pixel and number of source pixels."""
    header = record.to(tl.pointer_type(tl.int32))
    return tl.load(header), tl.load(header + 1)


@triton.jit
def load_scales(
    record,  # float16
    TILE: tl.constexpr,
):  # fmt: skip
    """The scale of each pixel: 0 outside the resized box."""
    scales = (record + HEADER).to(tl.pointer_type(tl.float32))
    return tl.load(scales + tl.arange(0, TILE))


@triton.jit
def load_weights(
    record,  # float16
    first,
    axis: tl.constexpr, TAPS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """For TAPS source pixels from `first` on: [TILE, TAPS] if vertical, [TAPS, TILE] if horizontal.

    0 beyond the range. Vertical weights are read ROWS at a time.
    """
    tap, pixel = tl.arange(0, TAPS), tl.arange(0, TILE)
    start = record + (HEADER + 2 * TILE) + first * TILE
    if axis == VERTICAL:
        tl.static_assert(TAPS == ROWS)
        return tl.load(start + pixel[:, None] * ROWS + tap[None, :])
    else:
        return tl.load(start + tap[:, None] * TILE + pixel[None, :])


@triton.jit
def _weigh_tile(
    record,  # float16
    box, full, window, first, size, reverse,
    axis: tl.constexpr, BICUBIC: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Write the record of TILE pixels from `first` on."""
    scale = box.to(tl.float64) / full.to(tl.float64)
    stretch = tl.maximum(scale, 1.0)
    reach = (2.0 if BICUBIC else 1.0) * stretch
    start, length, centre, tap_step, inside = footprint(
        box, 0.0, scale, stretch, reach, full, window, first, size, reverse, TILE
    )  # fmt: skip
    header = record.to(tl.pointer_type(tl.int32))
    tl.store(header, start)
    tl.store(header + 1, length)
    pixel, step = tl.arange(0, TILE), tl.arange(0, STEP)
    totals = tl.zeros([STEP, TILE], tl.float32)
    for top in range(0, length, STEP):
        tap = tl.where(top + step < length, (top + step + 0.5) * tap_step, FAR)
        weight = _filter(tap[:, None] - centre[None, :], BICUBIC).to(tl.float16)
        target = record + (HEADER + 2 * TILE) + top * TILE
        if axis == VERTICAL:
            target += (step // ROWS * ROWS * TILE + step % ROWS)[:, None] + pixel[None, :] * ROWS
        else:
            target += step[:, None] * TILE + pixel[None, :]
        tl.store(target, weight)
        # Read back: otherwise the compiler computes the weights twice, to store and to sum them.
        tl.debug_barrier()
        totals += tl.load(target).to(tl.float32)
    total = tl.sum(totals, 0)
    # Scales turn sums of bytes into levels, and sums of levels into 0..1.
    unit = 1 / BYTE_UNIT if axis == VERTICAL else 1 / 255
    scales = (record + HEADER).to(tl.pointer_type(tl.float32))
    tl.store(scales + pixel, tl.where(inside, unit / tl.maximum(total, MIN_TOTAL), 0.0))


@triton.jit
def _filter(distance, BICUBIC: tl.constexpr):
    """Unnormalised filter at distances in filter units: half of Keys' cubic, or the triangle.

    With a = max(2 - x, 0) and b = max(1 - x, 0), half of Keys' kernel (a = -1/2) is, branch-free,
    a^2 (a - 1) / 4 + b^2 (1/2 - b); the triangle is b.
    """
    x = tl.abs(distance)
    b = tl.maximum(1 - x, 0.0)
    if BICUBIC:
        a = tl.maximum(2 - x, 0.0)
        return a * a * (a * 0.25 - 0.25) + b * b * (0.5 - b)
    else:
        return b
