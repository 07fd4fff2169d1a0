"""Triton kernels: `unfold` cuts images into patches, `fold` computes the gradient w.r.t. images."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["patches", "each_image", "columns"])
def unfold(
    images,  # [B, C, H, W] with any strides; if RAGGED a table, [B, 4] int64, see below
    index,  # [patches] int64: each patch's image, read if RAGGED
    positions,  # [patches, 2] int64: y and x, read if RAGGED
    scales,  # [2, CHANNELS] float32: scale and shift
    out,  # [patches, CHANNELS, SIZE, SIZE], written
    patches,
    each_image,  # patches per image
    columns,  # patches per row
    stride_b,
    stride_c,
    stride_y,
    stride_x,
    stride,  # pixels between patches
    SIZE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_PATCHES: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    RAGGED: tl.constexpr,
):
    """BLOCK_PIXELS pixels of BLOCK_PATCHES patches, all their channels.

    A row of the RAGGED table is an image's address and its strides along y, x and channels. Reads
    each pixel once for each window that contains it, mostly from caches, and writes the patches.
    One multiply-add per element.
    """
    # This program's patches and pixels.
    tiles: tl.constexpr = (SIZE * SIZE + BLOCK_PIXELS - 1) // BLOCK_PIXELS
    patch = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_PATCHES + tl.arange(0, BLOCK_PATCHES)
    pixel = tl.program_id(0) % tiles * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)[None, :]
    exists = patch < patches
    mask = exists[:, None] & (pixel < SIZE * SIZE)
    # Image, strides and corner of each patch.
    if RAGGED:
        entry = images + tl.load(index + patch, mask=exists, other=0) * 4
        image = tl.load(entry)[:, None].to(tl.pointer_type(tl.uint8))
        step_y, step_x = tl.load(entry + 1)[:, None], tl.load(entry + 2)[:, None]
        step_c = tl.load(entry + 3)[:, None]
        y = tl.load(positions + 2 * patch, mask=exists, other=0)[:, None]
        x = tl.load(positions + 2 * patch + 1, mask=exists, other=0)[:, None]
    else:
        image = (images + patch // each_image * stride_b)[:, None]
        step_y, step_x, step_c = stride_y, stride_x, stride_c
        number = (patch % each_image)[:, None]
        y, x = number // columns * stride, number % columns * stride
    # Read, normalise, write.
    inside = pixel // SIZE * tl.cast(step_y, tl.int32) + pixel % SIZE * tl.cast(step_x, tl.int32)
    source = image + (y * step_y + x * step_x) + inside
    target = out + patch[:, None] * (CHANNELS * SIZE * SIZE) + pixel
    for channel in tl.static_range(CHANNELS):
        value = tl.load(source + channel * step_c, mask=mask, other=0).to(tl.float32)
        value = value * tl.load(scales + channel) + tl.load(scales + CHANNELS + channel)
        tl.store(target + channel * SIZE * SIZE, value.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["height", "width", "rows", "columns", "tiles"])
def fold(
    grad_patches,  # [B * rows * columns, CHANNELS, SIZE, SIZE], any dtype
    scales,  # [2, CHANNELS] float32: scale and shift; only the scale is used
    out,  # [B, CHANNELS, height, width], written
    height,
    width,
    rows,  # of windows of an image
    columns,
    tiles,  # programs per image
    stride,  # pixels between windows
    SIZE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
):
    """BLOCK_PIXELS pixels of one image: each gathers the windows that contain it, in order.

    No atomics. Reads the gradient w.r.t. the patches once and writes that w.r.t. images; one
    addition per element read.
    """
    # This program's pixels.
    image = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    y, x = pixel // width, pixel % width
    overlap = (SIZE + stride - 1) // stride  # windows along an axis that may contain a pixel
    for channel in tl.static_range(CHANNELS):
        # Sum over the windows.
        total = tl.zeros([BLOCK_PIXELS], tl.float32)
        for i in range(0, overlap):
            row = y // stride - (overlap - 1 - i)
            inner_y = y - row * stride
            valid_y = (row >= 0) & (row < rows) & (inner_y < SIZE) & (y < height)
            for j in range(0, overlap):
                column = x // stride - (overlap - 1 - j)
                inner_x = x - column * stride
                valid = valid_y & (column >= 0) & (column < columns) & (inner_x < SIZE)
                patch = (image * rows + row) * columns + column
                at = ((patch * CHANNELS + channel) * SIZE + inner_y) * SIZE + inner_x
                total += tl.load(grad_patches + at, mask=valid, other=0).to(tl.float32)
        # Scale and write.
        total = total * tl.load(scales + channel)
        target = out + (image * CHANNELS + channel) * height * width + pixel
        tl.store(target, total.to(out.dtype.element_ty), mask=pixel < height * width)
