"""Triton kernels of RoI-align: `bin_weights` computes interpolation weights, the others apply them.

Maps are [N, H, W, C] and grids of bins [R, K, K, C], contiguous. RoI-align is separable: `weights`
is [R, 2, K, SIDE] float32, for rows and for columns, with SIDE = max(H, W), and `extents` is
[R, 2, K, 2] int32, the first and the last pixel that a bin touches; for a bin that touches none the
last is below the first.
"""

from __future__ import annotations

import triton
import triton.language as tl

TINY = tl.constexpr(1.1754943508222875e-38)  # squares below this count as 0


@triton.jit(do_not_specialize=["height", "width"])
def bin_weights(
    boxes,  # [R, 4] float32
    weights,  # [R, 2, K, SIDE] float32, written
    extents,  # [R, 2, K, 2] int32, written
    height,
    width,
    K: tl.constexpr,
    SIDE: tl.constexpr,
    BLOCK_K: tl.constexpr,  # at least K
    BLOCK_PIXELS: tl.constexpr,
):
    """Interpolation weights of BLOCK_PIXELS pixels in the bins of one axis of one box.

    Like `reference.bin_weights`. Reads 8 bytes and writes 4 K per pixel; about 8 operations per
    bin, pixel and sample of a bin, with at most 2 SIDE + 6 samples. Divisions are IEEE-rounded, as
    in torchvision's count of samples.
    """
    # Bins of this axis: their length, samples, and first corner.
    region, axis = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixel = tl.program_id(2) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    bin_index = tl.arange(0, BLOCK_K)
    pixels = tl.where(axis == 0, height, width)
    begin = tl.load(boxes + region * 4 + 1 - axis) - 0.5
    length = tl.div_rn((tl.load(boxes + region * 4 + 3 - axis) - 0.5) - begin, K * 1.0)
    finite = tl.abs(length) < float("inf")
    count = tl.ceil(length)
    samples = tl.where(finite, tl.minimum(tl.maximum(count, 0.0), 2.0 * pixels + 6), 0.0)
    count = tl.maximum(count, 1.0)
    step = tl.div_rn(length, count)
    corner = begin + bin_index * length
    skipped = tl.maximum(tl.floor((-1 - corner) / step) - 1, 0.0)

    # Sum the samples' weights, each interpolated between the two nearest pixels.
    summed = tl.zeros([BLOCK_K, BLOCK_PIXELS], tl.float32)
    first = tl.full([BLOCK_K], SIDE, tl.int32)
    last = tl.full([BLOCK_K], -1, tl.int32)
    for sample in range(0, samples.to(tl.int32)):
        number = skipped + sample
        position = corner + (number + 0.5) * step
        inside = (position >= -1) & (position <= pixels) & (number < count)
        position = tl.minimum(tl.maximum(position, 0.0), pixels - 1.0)
        near = 1 - tl.abs(pixel[None, :] - position[:, None])
        summed += tl.where(inside[:, None], tl.maximum(near, 0.0), 0.0)
        left = position.to(tl.int32)
        first = tl.where(inside, tl.minimum(first, left), first)
        last = tl.where(inside, tl.maximum(last, tl.minimum(left + 1, pixels - 1)), last)
    # Boxes that are not finite are NaN in every pixel.
    summed = tl.where(finite, summed / count, float("nan"))
    first = tl.where(finite, first, 0)
    last = tl.where(finite, last, pixels - 1)

    # Write.
    row = (region * 2 + axis) * K + bin_index
    target = weights + row[:, None] * SIDE + pixel[None, :]
    tl.store(target, summed, mask=(bin_index < K)[:, None] & (pixel < SIDE)[None, :])
    if tl.program_id(2) == 0:
        tl.store(extents + row * 2, first, mask=bin_index < K)
        tl.store(extents + row * 2 + 1, last, mask=bin_index < K)


@triton.jit(do_not_specialize=["count", "height", "width"])
def pool(
    maps,  # [count, height, width, C], any dtype
    index,  # [R] int64: each region's map
    poses,  # [R] int64: quarter turns, plus 4 for a mirror
    weights,  # [R, 2, K, SIDE] float32
    extents,  # [R, 2, K, 2] int32
    out,  # [R, K, K, C], dtype of the maps, written
    count,
    height,
    width,
    C: tl.constexpr,
    K: tl.constexpr,
    SIDE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_X: tl.constexpr,  # pixels of a row at a time
):
    """RoI-align: BLOCK_C channels of one bin.

    Reads each pixel that the bin touches, mostly from the caches, as neighbouring bins touch them
    too, and writes the bin once; 2 operations per element read.
    """
    region, i, j = _bin_of(tl.program_id(0), K)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    p, q = _upright(i, j, tl.load(poses + region), K)
    pooled = _pool_bin(
        maps, tl.load(index + region), count, height, width, weights, extents, region, p, q,
        channel, C, K, SIDE, BLOCK_C, BLOCK_X,
    )  # fmt: skip
    target = out + tl.program_id(0).to(tl.int64) * C + channel
    tl.store(target, pooled.to(out.dtype.element_ty), mask=channel < C)


@triton.jit(do_not_specialize=["height", "width"])
def pool_backward(
    grad_pooled,  # [R, K, K, C], any dtype
    poses,  # [R] int64, or None unless POSED
    order,  # [R] int64: regions sorted by map
    offsets,  # [maps + 1] int64: where those of each map begin in `order`
    weights,  # [R, 2, K, SIDE] float32
    extents,  # [R, 2, K, 2] int32
    out,  # [maps, height, width, C], dtype of grad_pooled, written
    height,
    width,
    C: tl.constexpr,
    K: tl.constexpr,
    SIDE: tl.constexpr,
    BLOCK_K: tl.constexpr,  # at least K
    BLOCK_C: tl.constexpr,
    BLOCK_X: tl.constexpr,  # bins of a row at a time
    POSED: tl.constexpr,
):
    """Gradient of RoI-align: BLOCK_C channels of one pixel, gathered from the bins that touch it.

    Regions and bins are summed in order. Reads the extents of all regions of the map, 16 K bytes
    each, and the bins that touch the pixel, mostly from the caches; writes the pixel once. 2
    operations per element of a bin.
    """
    # This program's pixel.
    x, y = tl.program_id(0) % width, tl.program_id(0) // width % height
    number = tl.program_id(0) // width // height
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    bin_index = tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_C], tl.float32)
    for slot in range(tl.load(offsets + number), tl.load(offsets + number + 1)):
        region = tl.load(order + slot)
        pose = 0
        if POSED:
            pose = tl.load(poses + region).to(tl.int32)
        # Bins of the region that touch the pixel.
        rows, columns = region * 2 * K, region * 2 * K + K
        top, bottom = _bins_at_pixel(extents + rows * 2, y, bin_index, K)
        left, right = _bins_at_pixel(extents + columns * 2, x, bin_index, K)
        # Their gradients, weighted.
        for p in range(top, bottom + 1):
            row_weight = tl.load(weights + (rows + p) * SIDE + y)
            for first in range(left, right + 1, BLOCK_X):
                q = first + tl.arange(0, BLOCK_X)
                column_weight = tl.load(
                    weights + (columns + q) * SIDE + x, mask=q <= right, other=0.0
                )
                i, j = _oriented(p, q, pose, K)
                source = grad_pooled + ((region * K + i) * K + j)[:, None] * C + channel[None, :]
                mask = (q <= right)[:, None] & (channel < C)[None, :]
                grads = tl.load(source, mask=mask, other=0.0).to(tl.float32)
                total += row_weight * tl.sum(column_weight[:, None] * grads, 0)
    target = out + tl.program_id(0).to(tl.int64) * C + channel
    tl.store(target, total.to(out.dtype.element_ty), mask=channel < C)


@triton.jit(
    do_not_specialize=[
        "count", "height", "width", "teacher_count", "teacher_height", "teacher_width",
    ]
)  # fmt: skip
def compare_bins(
    student,  # [count, height, width, C], any dtype
    teacher,  # [teacher_count, teacher_height, teacher_width, C], dtype of the student
    student_index,  # [R] int64: each region's map
    teacher_index,  # [R] int64
    poses,  # [R] int64: quarter turns of the teacher's region, plus 4 for a mirror
    weights,  # [R, 2, K, SIDE] float32, of the student's boxes
    extents,  # [R, 2, K, 2] int32
    teacher_weights,  # [R, 2, K, TEACHER_SIDE] float32
    teacher_extents,  # [R, 2, K, 2] int32
    cosines,  # [R, K * K] float32, written
    scale_t,  # [R, K * K] float32, written
    scale_s,  # [R, K * K] float32, written
    count,
    height,
    width,
    teacher_count,
    teacher_height,
    teacher_width,
    C: tl.constexpr,
    K: tl.constexpr,
    SIDE: tl.constexpr,
    TEACHER_SIDE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_X: tl.constexpr,  # pixels of a row at a time
):
    """Fused RoI-align and cosine of one pair of bins, and the scales of its gradient.

    The gradient of the cosine w.r.t. the student's channels s is  scale_t t - scale_s s. Reads what
    `pool` would for both grids, and writes 12 bytes; 6 more operations per channel.
    """
    # This program's bin: (i, j) of the student, (p, q) of the teacher.
    region, i, j = _bin_of(tl.program_id(0), K)
    p, q = _upright(i, j, tl.load(poses + region), K)
    map_s, map_t = tl.load(student_index + region), tl.load(teacher_index + region)
    product = tl.zeros([BLOCK_C], tl.float32)
    square_s = tl.zeros([BLOCK_C], tl.float32)
    square_t = tl.zeros([BLOCK_C], tl.float32)
    for start in range(0, C, BLOCK_C):
        # Pool both, and accumulate their products.
        channel = start + tl.arange(0, BLOCK_C)
        s = _pool_bin(
            student, map_s, count, height, width, weights, extents, region, i, j,
            channel, C, K, SIDE, BLOCK_C, BLOCK_X,
        )  # fmt: skip
        t = _pool_bin(
            teacher, map_t, teacher_count, teacher_height, teacher_width, teacher_weights,
            teacher_extents, region, p, q, channel, C, K, TEACHER_SIDE, BLOCK_C, BLOCK_X,
        )  # fmt: skip
        product += s * t
        square_s += s * s
        square_t += t * t
    # Cosine, and the scales for the gradient.
    inverse_s, inverse_t = _inverse_norm(tl.sum(square_s, 0)), _inverse_norm(tl.sum(square_t, 0))
    cosine = tl.sum(product, 0) * (inverse_s * inverse_t)
    tl.store(cosines + tl.program_id(0), cosine)
    tl.store(scale_t + tl.program_id(0), inverse_s * inverse_t)
    tl.store(scale_s + tl.program_id(0), cosine * inverse_s * inverse_s)


@triton.jit(
    do_not_specialize=[
        "count", "height", "width", "teacher_count", "teacher_height", "teacher_width",
    ]
)  # fmt: skip
def grad_bins(
    region_weight,  # [R] float32: gradient w.r.t. the cosine of each of a region's bins
    scale_t,  # [R, K * K] float32
    scale_s,  # [R, K * K] float32
    student,  # [count, height, width, C], any dtype
    teacher,  # [teacher_count, teacher_height, teacher_width, C], dtype of the student
    student_index,  # [R] int64
    teacher_index,  # [R] int64
    poses,  # [R] int64
    weights,  # [R, 2, K, SIDE] float32, of the student's boxes
    extents,  # [R, 2, K, 2] int32
    teacher_weights,  # [R, 2, K, TEACHER_SIDE] float32
    teacher_extents,  # [R, 2, K, 2] int32
    out,  # [R, K, K, C], dtype of the student, written
    count,
    height,
    width,
    teacher_count,
    teacher_height,
    teacher_width,
    C: tl.constexpr,
    K: tl.constexpr,
    SIDE: tl.constexpr,
    TEACHER_SIDE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_X: tl.constexpr,  # pixels of a row at a time
):
    """Gradient w.r.t. BLOCK_C channels of one bin of the student's grid.

    Recomputes both bins: reads what `pool` would for both grids, and 12 bytes; writes the bin once.
    """
    # Pool both.
    region, i, j = _bin_of(tl.program_id(0), K)
    p, q = _upright(i, j, tl.load(poses + region), K)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    s = _pool_bin(
        student, tl.load(student_index + region), count, height, width, weights, extents, region,
        i, j, channel, C, K, SIDE, BLOCK_C, BLOCK_X,
    )  # fmt: skip
    t = _pool_bin(
        teacher, tl.load(teacher_index + region), teacher_count, teacher_height, teacher_width,
        teacher_weights, teacher_extents, region, p, q, channel,
        C, K, TEACHER_SIDE, BLOCK_C, BLOCK_X,
    )  # fmt: skip
    # Gradient of the cosine.
    weight = tl.load(region_weight + region)
    factor_t = weight * tl.load(scale_t + tl.program_id(0))
    factor_s = weight * tl.load(scale_s + tl.program_id(0))
    target = out + tl.program_id(0).to(tl.int64) * C + channel
    tl.store(target, (factor_t * t - factor_s * s).to(out.dtype.element_ty), mask=channel < C)


@triton.jit
def _pool_bin(
    maps,  # [count, height, width, C]
    number,  # of the map
    count,
    height,
    width,
    weights,  # [R, 2, K, SIDE] float32
    extents,  # [R, 2, K, 2] int32
    region,
    p,
    q,
    channel,  # [BLOCK_C]
    C: tl.constexpr,
    K: tl.constexpr,
    SIDE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_X: tl.constexpr,
):
    """[BLOCK_C] float32: bin (p, q) of a region of a map; NaN if there is no such map."""
    # Pixels that the bin touches.
    row, column = region * 2 * K + p, region * 2 * K + K + q
    exists = (number >= 0) & (number < count)
    top = tl.load(extents + row * 2)
    bottom = tl.where(exists, tl.load(extents + row * 2 + 1), -1)
    left, right = tl.load(extents + column * 2), tl.load(extents + column * 2 + 1)
    # Their weighted sum.
    total = tl.zeros([BLOCK_C], tl.float32)
    for y in range(top, bottom + 1):
        row_weight = tl.load(weights + row * SIDE + y)
        line = maps + (number * height + y) * width * C
        for first in range(left, right + 1, BLOCK_X):
            x = first + tl.arange(0, BLOCK_X)
            column_weight = tl.load(weights + column * SIDE + x, mask=x <= right, other=0.0)
            mask = (x <= right)[:, None] & (channel < C)[None, :]
            pixels = tl.load(line + x[:, None] * C + channel[None, :], mask=mask, other=0.0)
            total += row_weight * tl.sum(column_weight[:, None] * pixels.to(tl.float32), 0)
    return tl.where(exists, total, float("nan"))


@triton.jit
def _bins_at_pixel(
    extents,  # [K, 2] int32: one axis of one region
    pixel,
    bin_index,  # [BLOCK_K]
    K: tl.constexpr,
):
    """First and last bin that touch a pixel; those in between do too."""
    first = tl.load(extents + bin_index * 2, mask=bin_index < K, other=1)
    last = tl.load(extents + bin_index * 2 + 1, mask=bin_index < K, other=0)
    touches = (bin_index < K) & (first <= pixel) & (pixel <= last)
    return tl.min(tl.where(touches, bin_index, K), 0), tl.max(tl.where(touches, bin_index, -1), 0)


@triton.jit
def _bin_of(number, K: tl.constexpr):
    """Region, row and column of a bin, from its index among all bins."""
    return (number // (K * K)).to(tl.int64), number // K % K, number % K


@triton.jit
def _oriented(p, q, pose, K: tl.constexpr):
    """Row and column of bin (p, q) after the mirror and the quarter turns."""
    q = tl.where(pose >= 4, K - 1 - q, q)
    turns = pose % 4
    i = tl.where(turns == 0, p, tl.where(turns == 1, K - 1 - q, tl.where(turns == 2, K - 1 - p, q)))
    j = tl.where(turns == 0, q, tl.where(turns == 1, p, tl.where(turns == 2, K - 1 - q, K - 1 - p)))
    return i, j


@triton.jit
def _upright(i, j, pose, K: tl.constexpr):
    """The bin that is at row i, column j after the mirror and the turns; inverts `_oriented`."""
    turns = pose % 4
    p = tl.where(turns == 0, i, tl.where(turns == 1, j, tl.where(turns == 2, K - 1 - i, K - 1 - j)))
    q = tl.where(turns == 0, j, tl.where(turns == 1, K - 1 - i, tl.where(turns == 2, K - 1 - j, i)))
    return p, tl.where(pose >= 4, K - 1 - q, q)


@triton.jit
def _inverse_norm(square):
    """1 / sqrt(square): 0 for a norm of 0, NaN if the norm is not finite."""
    result = tl.where(square < TINY, 0.0, 1 / tl.sqrt(square))
    return tl.where(square == float("inf"), float("nan"), result)
