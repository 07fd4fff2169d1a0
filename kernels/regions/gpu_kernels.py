"""What runs on the GPU: `share_out` weighs pixels, the others sum them up.

Maps are [N, H, W, C] and grids [R, K, K, C], contiguous. `shares` is [R, 2, K, LONG], down and
across, of LONG = max(H, W) numbers, and `spans` [R, 2, K, 2] the first and last pixel that a bin
touches; a bin that touches none has a last one below its first.
"""

from __future__ import annotations

import triton
import triton.language as tl

TINY = tl.constexpr(1.1754943508222875e-38)  # squares below this count as 0


@triton.jit(do_not_specialize=["height", "width"])
def share_out(
    boxes, shares, spans, height, width,
    K: tl.constexpr, LONG: tl.constexpr, BINS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """One axis of one box, PIXELS pixels of it; as `reference.shares`.

    Reads 8 bytes and writes 4 K for each pixel; computes about 8 operations for each bin, pixel and
    sample of a bin, of which there are at most 2 LONG + 6. Divides as IEEE says, and as torchvision
    does when it counts samples.
    """
    region, axis = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixel = tl.program_id(2) * PIXELS + tl.arange(0, PIXELS)
    cell = tl.arange(0, BINS)
    pixels = tl.where(axis == 0, height, width)
    begin = tl.load(boxes + region * 4 + 1 - axis) - 0.5
    length = tl.div_rn((tl.load(boxes + region * 4 + 3 - axis) - 0.5) - begin, K * 1.0)
    finite = tl.abs(length) < float("inf")
    count = tl.ceil(length)
    most = tl.where(finite, tl.minimum(tl.maximum(count, 0.0), 2.0 * pixels + 6), 0.0)
    count = tl.maximum(count, 1.0)
    step = tl.div_rn(length, count)
    corner = begin + cell * length
    skipped = tl.maximum(tl.floor((-1 - corner) / step) - 1, 0.0)

    summed = tl.zeros([BINS, PIXELS], tl.float32)
    first = tl.full([BINS], LONG, tl.int32)
    last = tl.full([BINS], -1, tl.int32)
    for sample in range(0, most.to(tl.int32)):
        number = skipped + sample
        place = corner + (number + 0.5) * step
        counts = (place >= -1) & (place <= pixels) & (number < count)
        place = tl.minimum(tl.maximum(place, 0.0), pixels - 1.0)
        near = 1 - tl.abs(pixel[None, :] - place[:, None])
        summed += tl.where(counts[:, None], tl.maximum(near, 0.0), 0.0)
        left = place.to(tl.int32)
        first = tl.where(counts, tl.minimum(first, left), first)
        last = tl.where(counts, tl.maximum(last, tl.minimum(left + 1, pixels - 1)), last)
    summed = tl.where(finite, summed / count, float("nan"))
    first = tl.where(finite, first, 0)
    last = tl.where(finite, last, pixels - 1)

    row = (region * 2 + axis) * K + cell
    place = shares + row[:, None] * LONG + pixel[None, :]
    tl.store(place, summed, mask=(cell < K)[:, None] & (pixel < LONG)[None, :])
    if tl.program_id(2) == 0:
        tl.store(spans + row * 2, first, mask=cell < K)
        tl.store(spans + row * 2 + 1, last, mask=cell < K)


@triton.jit(do_not_specialize=["count", "height", "width"])
def pool(
    maps, index, poses, shares, spans, out, count, height, width,
    C: tl.constexpr, K: tl.constexpr, LONG: tl.constexpr,
    CHANNELS: tl.constexpr, BESIDE: tl.constexpr,
):  # fmt: skip
    """CHANNELS channels of one cell of a grid.

    Reads each pixel that the cell touches, for the most part from the caches, as its neighbours
    touch them too, and writes the cell once; computes 2 operations for each of those numbers.
    """
    region, i, j = _cell(tl.program_id(0), K)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    p, q = _source(i, j, tl.load(poses + region), K)
    found = _pooled(
        maps, tl.load(index + region), count, height, width, shares, spans, region, p, q, channel,
        C, K, LONG, CHANNELS, BESIDE,
    )  # fmt: skip
    place = out + tl.program_id(0).to(tl.int64) * C + channel
    tl.store(place, found.to(out.dtype.element_ty), mask=channel < C)


@triton.jit(do_not_specialize=["height", "width"])
def unpool(
    gradient, poses, order, ends, shares, spans, out, height, width,
    C: tl.constexpr, K: tl.constexpr, LONG: tl.constexpr, BINS: tl.constexpr,
    CHANNELS: tl.constexpr, BESIDE: tl.constexpr, POSED: tl.constexpr,
):  # fmt: skip
    """CHANNELS channels of one pixel of a map: what its regions' cells, in their order, give it.

    Reads the spans of all regions of the map, 16 K bytes each, and the cells that touch the pixel,
    mostly from the caches; writes the pixel once. Computes 2 operations for each number of a cell.
    """
    x, y = tl.program_id(0) % width, tl.program_id(0) // width % height
    here = tl.program_id(0) // width // height
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    cell = tl.arange(0, BINS)
    found = tl.zeros([CHANNELS], tl.float32)
    for slot in range(tl.load(ends + here), tl.load(ends + here + 1)):
        region = tl.load(order + slot)
        pose = 0
        if POSED:
            pose = tl.load(poses + region).to(tl.int32)
        down, across = region * 2 * K, region * 2 * K + K
        top, bottom = _touching(spans + down * 2, y, cell, K)
        left, right = _touching(spans + across * 2, x, cell, K)
        for p in range(top, bottom + 1):
            weight = tl.load(shares + (down + p) * LONG + y)
            for first in range(left, right + 1, BESIDE):
                q = first + tl.arange(0, BESIDE)
                beside = tl.load(shares + (across + q) * LONG + x, mask=q <= right, other=0.0)
                i, j = _placed(p, q, pose, K)
                place = gradient + ((region * K + i) * K + j)[:, None] * C + channel[None, :]
                seen = (q <= right)[:, None] & (channel < C)[None, :]
                cells = tl.load(place, mask=seen, other=0.0).to(tl.float32)
                found += weight * tl.sum(beside[:, None] * cells, 0)
    place = out + tl.program_id(0).to(tl.int64) * C + channel
    tl.store(place, found.to(out.dtype.element_ty), mask=channel < C)


@triton.jit(do_not_specialize=["n_near", "height", "width", "n_far", "far_height", "far_width"])
def compare(
    student, teacher, of_student, of_teacher, poses, shares, spans, far_shares, far_spans,
    cosines, toward, along, n_near, height, width, n_far, far_height, far_width,
    C: tl.constexpr, K: tl.constexpr, LONG: tl.constexpr, FAR_LONG: tl.constexpr,
    CHANNELS: tl.constexpr, BESIDE: tl.constexpr,
):  # fmt: skip
    """One cell of a pair of grids: its cosine, and what the gradient needs.

    Reads what `pool` would for both, and writes 12 bytes; computes 6 operations more a channel.
    """
    region, i, j = _cell(tl.program_id(0), K)
    p, q = _source(i, j, tl.load(poses + region), K)
    near, far = tl.load(of_student + region), tl.load(of_teacher + region)
    product = tl.zeros([CHANNELS], tl.float32)
    square_s = tl.zeros([CHANNELS], tl.float32)
    square_t = tl.zeros([CHANNELS], tl.float32)
    for start in range(0, C, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        s = _pooled(
            student, near, n_near, height, width, shares, spans, region, i, j, channel,
            C, K, LONG, CHANNELS, BESIDE,
        )  # fmt: skip
        t = _pooled(
            teacher, far, n_far, far_height, far_width, far_shares, far_spans, region, p, q,
            channel, C, K, FAR_LONG, CHANNELS, BESIDE,
        )  # fmt: skip
        product += s * t
        square_s += s * s
        square_t += t * t
    scale_s, scale_t = _scale(tl.sum(square_s, 0)), _scale(tl.sum(square_t, 0))
    cosine = tl.sum(product, 0) * (scale_s * scale_t)
    tl.store(cosines + tl.program_id(0), cosine)
    tl.store(toward + tl.program_id(0), scale_s * scale_t)
    tl.store(along + tl.program_id(0), cosine * scale_s * scale_s)


@triton.jit(do_not_specialize=["n_near", "height", "width", "n_far", "far_height", "far_width"])
def slope(
    weight, toward, along, student, teacher, of_student, of_teacher, poses, shares, spans,
    far_shares, far_spans, out, n_near, height, width, n_far, far_height, far_width,
    C: tl.constexpr, K: tl.constexpr, LONG: tl.constexpr, FAR_LONG: tl.constexpr,
    CHANNELS: tl.constexpr, BESIDE: tl.constexpr,
):  # fmt: skip
    """CHANNELS channels of one cell: the gradient by the student's grid.

    Reads what `pool` would for both grids, and 12 bytes; writes the cell once.
    """
    region, i, j = _cell(tl.program_id(0), K)
    p, q = _source(i, j, tl.load(poses + region), K)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    s = _pooled(
        student, tl.load(of_student + region), n_near, height, width, shares, spans, region, i, j,
        channel, C, K, LONG, CHANNELS, BESIDE,
    )  # fmt: skip
    t = _pooled(
        teacher, tl.load(of_teacher + region), n_far, far_height, far_width, far_shares, far_spans,
        region, p, q, channel, C, K, FAR_LONG, CHANNELS, BESIDE,
    )  # fmt: skip
    gain = tl.load(weight + region)
    to_t = gain * tl.load(toward + tl.program_id(0))
    to_s = gain * tl.load(along + tl.program_id(0))
    place = out + tl.program_id(0).to(tl.int64) * C + channel
    tl.store(place, (to_t * t - to_s * s).to(out.dtype.element_ty), mask=channel < C)


@triton.jit
def _pooled(
    maps, here, count, height, width, shares, spans, region, p, q, channel,
    C: tl.constexpr, K: tl.constexpr, LONG: tl.constexpr,
    CHANNELS: tl.constexpr, BESIDE: tl.constexpr,
):  # fmt: skip
    """Channels of bin p, q of a region of a map; NaN where there is no such map."""
    down, across = region * 2 * K + p, region * 2 * K + K + q
    there = (here >= 0) & (here < count)
    top = tl.load(spans + down * 2)
    bottom = tl.where(there, tl.load(spans + down * 2 + 1), -1)
    left, right = tl.load(spans + across * 2), tl.load(spans + across * 2 + 1)
    found = tl.zeros([CHANNELS], tl.float32)
    for y in range(top, bottom + 1):
        weight = tl.load(shares + down * LONG + y)
        row = maps + (here * height + y) * width * C
        for first in range(left, right + 1, BESIDE):
            x = first + tl.arange(0, BESIDE)
            beside = tl.load(shares + across * LONG + x, mask=x <= right, other=0.0)
            seen = (x <= right)[:, None] & (channel < C)[None, :]
            pixels = tl.load(row + x[:, None] * C + channel[None, :], mask=seen, other=0.0)
            found += weight * tl.sum(beside[:, None] * pixels.to(tl.float32), 0)
    return tl.where(there, found, float("nan"))


@triton.jit
def _touching(spans, pixel, cell, K: tl.constexpr):
    """The first and the last bin that touch a pixel; bins in between do too."""
    first = tl.load(spans + cell * 2, mask=cell < K, other=1)
    last = tl.load(spans + cell * 2 + 1, mask=cell < K, other=0)
    touches = (cell < K) & (first <= pixel) & (pixel <= last)
    return tl.min(tl.where(touches, cell, K), 0), tl.max(tl.where(touches, cell, -1), 0)


@triton.jit
def _cell(number, K: tl.constexpr):
    """Region, row and column of a cell."""
    return (number // (K * K)).to(tl.int64), number // K % K, number % K


@triton.jit
def _placed(p, q, pose, K: tl.constexpr):
    """Where bin p, q is after the mirror and the turns."""
    q = tl.where(pose >= 4, K - 1 - q, q)
    turns = pose % 4
    i = tl.where(turns == 0, p, tl.where(turns == 1, K - 1 - q, tl.where(turns == 2, K - 1 - p, q)))
    j = tl.where(turns == 0, q, tl.where(turns == 1, p, tl.where(turns == 2, K - 1 - q, K - 1 - p)))
    return i, j


@triton.jit
def _source(i, j, pose, K: tl.constexpr):
    """Which bin is at row i, column j after the mirror and the turns."""
    turns = pose % 4
    p = tl.where(turns == 0, i, tl.where(turns == 1, j, tl.where(turns == 2, K - 1 - i, K - 1 - j)))
    q = tl.where(turns == 0, j, tl.where(turns == 1, K - 1 - i, tl.where(turns == 2, K - 1 - j, i)))
    return p, tl.where(pose >= 4, K - 1 - q, q)


@triton.jit
def _scale(square):
    """What makes a norm 1: 0 for those of 0, NaN where there is no finite norm."""
    found = tl.where(square < TINY, 0.0, 1 / tl.sqrt(square))
    return tl.where(square == float("inf"), float("nan"), found)
