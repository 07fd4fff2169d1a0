"""The kernels: windows out of images and back, and sums of rows by group, forward and backward."""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.patches import reference

EPS = tl.constexpr(reference.EPS)

# ------------------------------------------------------------------------------------ grids


@triton.jit(do_not_specialize=["patches", "each_image", "columns"])
def cut(
    images, index, positions, scales, out, patches, each_image, columns, step_b, step_c, step_y,
    step_x, stride, SIZE: tl.constexpr, CHANNELS: tl.constexpr, TALL: tl.constexpr,
    WIDE: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """WIDE places of TALL patches, all their channels.

    Reads each pixel once for each window that shows it, mostly from caches, and writes the patches.
    Computes one multiply-add a number. RAGGED: `images` is a table of addresses and of steps along
    y and x and from channel to channel, all [B]; whose a patch is and where stands in memory.
    """
    tiles: tl.constexpr = (SIZE * SIZE + WIDE - 1) // WIDE
    patch = (tl.program_id(0) // tiles).to(tl.int64) * TALL + tl.arange(0, TALL)
    place = tl.program_id(0) % tiles * WIDE + tl.arange(0, WIDE)[None, :]
    here = patch < patches
    seen = here[:, None] & (place < SIZE * SIZE)
    if RAGGED:
        entry = images + tl.load(index + patch, mask=here, other=0) * 4
        image = tl.load(entry)[:, None].to(tl.pointer_type(tl.uint8))
        down, right = tl.load(entry + 1)[:, None], tl.load(entry + 2)[:, None]
        deep = tl.load(entry + 3)[:, None]
        y = tl.load(positions + 2 * patch, mask=here, other=0)[:, None]
        x = tl.load(positions + 2 * patch + 1, mask=here, other=0)[:, None]
    else:
        image = (images + patch // each_image * step_b)[:, None]
        down, right, deep = step_y, step_x, step_c
        number = (patch % each_image)[:, None]
        y, x = number // columns * stride, number % columns * stride
    inside = place // SIZE * tl.cast(down, tl.int32) + place % SIZE * tl.cast(right, tl.int32)
    source = image + (y * down + x * right) + inside
    target = out + patch[:, None] * (CHANNELS * SIZE * SIZE) + place
    for channel in tl.static_range(CHANNELS):
        value = tl.load(source + channel * deep, mask=seen, other=0).to(tl.float32)
        value = value * tl.load(scales + channel) + tl.load(scales + CHANNELS + channel)
        tl.store(target + channel * SIZE * SIZE, value.to(out.dtype.element_ty), mask=seen)


@triton.jit(do_not_specialize=["height", "width", "rows", "columns", "tiles"])
def fold(
    gradient, scales, out, height, width, rows, columns, tiles, stride,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """WIDE places of one image, all channels: each sums the windows that show it, in their order.

    Reads the gradient by the patches once and writes that by the images; an addition a number read.
    """
    image = (tl.program_id(0) // tiles).to(tl.int64)
    place = tl.program_id(0) % tiles * WIDE + tl.arange(0, WIDE)
    y, x = place // width, place % width
    reach = (SIZE + stride - 1) // stride
    for channel in tl.static_range(CHANNELS):
        total = tl.zeros([WIDE], tl.float32)
        for up in range(0, reach):
            row = y // stride - (reach - 1 - up)
            inner_y = y - row * stride
            tall = (row >= 0) & (row < rows) & (inner_y < SIZE) & (y < height)
            for left in range(0, reach):
                column = x // stride - (reach - 1 - left)
                inner_x = x - column * stride
                shown = tall & (column >= 0) & (column < columns) & (inner_x < SIZE)
                patch = (image * rows + row) * columns + column
                at = ((patch * CHANNELS + channel) * SIZE + inner_y) * SIZE + inner_x
                total += tl.load(gradient + at, mask=shown, other=0).to(tl.float32)
        total = total * tl.load(scales + channel)
        target = out + (image * CHANNELS + channel) * height * width + place
        tl.store(target, total.to(out.dtype.element_ty), mask=place < height * width)


# ------------------------------------------------------------------------------------ means


@triton.jit(do_not_specialize=["groups", "splits"])
def average(
    rows, weights, offsets, order, means, totals, lengths, groups, splits,
    D: tl.constexpr, WIDE: tl.constexpr, TALL: tl.constexpr, STAGES: tl.constexpr,
    EACH: tl.constexpr, UNIT: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """One of `splits` equal parts of a group's rows: their weighted sum; if WHOLE, their mean.

    Reads the rows once, and for each 8 bytes of the order and 4 of its weight. Computes a
    multiply-add a number, or two for EACH. Writes 4 D bytes: to means[group] if WHOLE, else to
    [splits, groups, D] for `settle`.
    """
    group, split = tl.program_id(0) // splits, tl.program_id(0) % splits
    first, begin, stop = _span(offsets, group, split, splits)
    inner = tl.arange(0, WIDE)
    sums, total = tl.zeros([TALL, WIDE], tl.float32), tl.zeros([TALL], tl.float32)
    for at in tl.range(begin, stop, TALL, num_stages=STAGES):
        row, there = _rows(order, first, at, stop, TALL)
        value = tl.load(
            rows + row[:, None] * D + inner[None, :], _mask(there, inner, D, WIDE), 0
        ).to(tl.float32)
        weight = there.to(tl.float32)
        if weights is not None:
            weight = tl.load(weights + row, mask=there, other=0)
        total += weight
        if EACH:
            weight = weight * _inverse(tl.sqrt_rn(tl.sum(value * value, 1)))
        sums += value * weight[:, None]
    found, total = tl.sum(sums, 0), tl.sum(total, 0)
    if WHOLE:
        _write(found, total, means, totals, lengths, group, inner, D, UNIT)
    else:
        slot = tl.cast(split, tl.int64) * groups + group
        tl.store(means + slot * D + inner, found, mask=inner < D)
        tl.store(totals + slot, total)


@triton.jit(do_not_specialize=["groups", "splits"])
def settle(
    parts, shares, means, totals, lengths, groups, splits,
    D: tl.constexpr, WIDE: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The mean of one group from its parts, in their order. Reads those and writes the mean."""
    group, inner = tl.program_id(0), tl.arange(0, WIDE)
    found, total = tl.zeros([WIDE], tl.float32), 0.0
    for split in range(0, splits):
        slot = tl.cast(split, tl.int64) * groups + group
        found += tl.load(parts + slot * D + inner, mask=inner < D, other=0)
        total += tl.load(shares + slot)
    _write(found, total, means, totals, lengths, group, inner, D, UNIT)


@triton.jit
def _write(
    found, total, means, totals, lengths, group, inner, D: tl.constexpr, UNIT: tl.constexpr
):  # fmt: skip
    mean = tl.where(total == 0, 0.0, found / total)
    length = 1.0
    if UNIT:
        length = tl.sqrt_rn(tl.sum(mean * mean, 0))
        mean = mean * _inverse(length)
    place = tl.cast(group, tl.int64) * D
    tl.store(means + place + inner, mean, mask=inner < D)
    tl.store(totals + group, total)
    tl.store(lengths + group, length)


@triton.jit(do_not_specialize=["splits"])
def pull(
    slope, rest, rows, weights, offsets, order, out, gains, splits,
    D: tl.constexpr, WIDE: tl.constexpr, TALL: tl.constexpr, STAGES: tl.constexpr,
    EACH: tl.constexpr,
):  # fmt: skip
    """The same part of a group's rows: their gradients, by the slope of the group.

    Reads the rows, for EACH and for gains, and writes as many bytes; for each row reads 8 bytes of
    the order and 4 of its weight. Computes at most four multiply-adds a number.
    """
    group, split = tl.program_id(0) // splits, tl.program_id(0) % splits
    first, begin, stop = _span(offsets, group, split, splits)
    inner = tl.arange(0, WIDE)
    down = tl.load(slope + tl.cast(group, tl.int64) * D + inner, mask=inner < D, other=0)[None, :]
    for at in tl.range(begin, stop, TALL, num_stages=STAGES):
        row, there = _rows(order, first, at, stop, TALL)
        place, seen = row[:, None] * D + inner[None, :], _mask(there, inner, D, WIDE)
        weight = there.to(tl.float32)
        if weights is not None:
            weight = tl.load(weights + row, mask=there, other=0)
        made = weight[:, None] * down
        if EACH or gains is not None:
            value = tl.load(rows + place, seen, 0).to(tl.float32)
            along = tl.sum(value * down, 1)
            if EACH:
                shrink = _inverse(tl.sqrt_rn(tl.sum(value * value, 1)))
                along = along * shrink
                made = (weight * shrink)[:, None] * (down - (along * shrink)[:, None] * value)
            if gains is not None:
                tl.store(gains + row, along - tl.load(rest + group), mask=there)
        if out is not None:
            tl.store(out + place, made.to(out.dtype.element_ty), mask=seen)


@triton.jit
def _span(offsets, group, split, splits):
    """The group's first row, and where among its rows this part begins and stops."""
    first = tl.load(offsets + group)
    count = (tl.load(offsets + group + 1) - first).to(tl.int32)
    length = tl.cdiv(count, splits)
    begin = tl.minimum(split * length, count)
    return first, begin, tl.minimum(begin + length, count)


@triton.jit
def _rows(order, first, at, stop, TALL: tl.constexpr):
    step = at + tl.arange(0, TALL)
    there = step < stop
    row = first + step
    if order is not None:
        row = tl.load(order + row, mask=there, other=0)
    return row, there


@triton.jit
def _mask(there, inner, D: tl.constexpr, WIDE: tl.constexpr):
    seen = there[:, None]
    if D != WIDE:
        seen = seen & (inner < D)[None, :]
    return seen


@triton.jit
def _inverse(length):
    return tl.where(length <= EPS, 0.0, 1 / length)
