"""Greyscale and colour jitter on the GPU, in registers, and the `contrast` pass.

Contrast needs the mean luma of the whole view. A view with contrast that spans several tiles stops
before contrast in the `resize` pass, which writes one luma sum per tile, and continues in the
`contrast` pass. The sums are reduced in a fixed order, so that runs are bit-identical.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views import decisions
from patchmill.kernels.views.gpu import fields
from patchmill.kernels.views.gpu.encode import encode_view, load_planes, store_planes

BRIGHTNESS, CONTRAST = tl.constexpr(decisions.BRIGHTNESS), tl.constexpr(decisions.CONTRAST)
SATURATION, HUE = tl.constexpr(decisions.SATURATION), tl.constexpr(decisions.HUE)
NO_JITTER = tl.constexpr(decisions.NO_JITTER)
GREY_FIRST, GREY_LAST = tl.constexpr(decisions.GREY_FIRST), tl.constexpr(decisions.GREY_LAST)
RED, GREEN, BLUE = map(tl.constexpr, decisions.LUMA)


@triton.jit(do_not_specialize=["n_groups", "n_views", "max_tiles", "chunk", "first_sample"])
def contrast(
    rows,  # [batch, n_views, FIELDS] int32
    slots,  # [n_views, SLOT_WORDS] int64
    groups,  # [chunks, n_groups, 3] int32
    entries,  # [views in this pass] int32: sample * n_views + view
    out,  # [batch elements], dtype of the batch
    planes,  # [elements of a chunk] float16
    luma_sums,  # [batch * n_views, max_tiles] float32
    n_groups, n_views, max_tiles, chunk, first_sample,
    PIXELS: tl.constexpr, STEP: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Contrast and the rest of the jitter, PIXELS pixels of a view per block, STEP at a time.

    Reads 6 bytes per pixel and writes the view. Computes about 12 operations per value for each
    remaining jitter operation, 20 for hue.
    """
    # Block to view.
    groups += chunk * n_groups * fields.GROUP_FIELDS
    entry, block, _ = fields.locate_block(groups, n_groups, tl.program_id(0))
    index = tl.load(entries + entry)
    row = rows + index * fields.FIELDS
    offset, in_planes, size, scales = fields.load_slot(
        slots, index % n_views, index // n_views, first_sample, ALIGNED
    )  # fmt: skip
    area = size * size

    # Mean luma: reduce the tiles' sums.
    side = tl.cdiv(size, TILE)
    tiles = side * side
    total = 0.0
    for first in range(0, tiles, 64):
        tile = first + tl.arange(0, 64)
        tile_sums = luma_sums + index.to(tl.int64) * max_tiles + tile
        total += tl.sum(tl.load(tile_sums, tile < tiles, 0.0))
    mean = total / area

    # The operations from contrast on; then write for the blur pass, or to the batch.
    first = contrast_position(row)
    grey_last = tl.load(row + fields.GREY) == GREY_LAST
    blurred = fields.load_float(row, fields.BLUR_SIGMA) > 0
    for start in range(block * PIXELS, tl.minimum((block + 1) * PIXELS, area), STEP):
        pixel = (start + tl.arange(0, STEP))[None, :]
        mask = pixel < area
        red, green, blue = load_planes(planes, in_planes, pixel, mask, area)
        red, green, blue = jitter(red, green, blue, row, first, 4, mean, mask, area, False)
        red, green, blue = grey(red, green, blue, grey_last)
        if blurred:
            store_planes(red, green, blue, planes, in_planes, pixel, mask, area)
        else:
            encode_view(
                red, green, blue, row, scales, out, offset, pixel, mask, area, CHANNELS_LAST
            )  # fmt: skip


@triton.jit
def contrast_position(
    row,  # [FIELDS] int32
):  # fmt: skip
    """Position of contrast in the jitter's order, 0 to 3."""
    order = tl.load(row + fields.ORDER)
    second = ((order >> 2) & 3) == CONTRAST
    third = ((order >> 4) & 3) == CONTRAST
    fourth = ((order >> 6) & 3) == CONTRAST
    return second.to(tl.int32) + 2 * third.to(tl.int32) + 3 * fourth.to(tl.int32)


@triton.jit
def jitter(
    red, green, blue,  # [rows, columns] float32
    row,  # [FIELDS] int32
    first, last, mean, mask, area,
    WHOLE_VIEW: tl.constexpr,
):  # fmt: skip
    """Operations `first` to `last` - 1 of the row's order.

    The mean luma is measured here if the tile is the WHOLE_VIEW, else it is `mean`.
    """
    order = tl.load(row + fields.ORDER)
    brightness = fields.load_float(row, fields.BRIGHTNESS)
    contrast_factor = fields.load_float(row, fields.CONTRAST)
    saturation = fields.load_float(row, fields.SATURATION)
    hue = fields.load_float(row, fields.HUE)
    for position in range(first, last):
        # All but hue blend: clamp(factor x + (1 - factor) y), y = 0, the mean luma or the pixel's.
        operation = (order >> (2 * position)) & 3
        if operation == BRIGHTNESS:
            red = tl.clamp(brightness * red, 0.0, 1.0)
            green = tl.clamp(brightness * green, 0.0, 1.0)
            blue = tl.clamp(brightness * blue, 0.0, 1.0)
        elif operation == CONTRAST:
            if WHOLE_VIEW:
                total = tl.sum(tl.where(mask, luma(red, green, blue), 0.0))
                red, green, blue = _blend(red, green, blue, contrast_factor, total / area)
            else:
                red, green, blue = _blend(red, green, blue, contrast_factor, mean)
        elif operation == SATURATION:
            red, green, blue = _blend(red, green, blue, saturation, luma(red, green, blue))
        else:
            red, green, blue = rotate_hue(red, green, blue, hue)
    return red, green, blue


@triton.jit
def _blend(red, green, blue, factor, other):
    other *= 1 - factor
    return (
        tl.clamp(factor * red + other, 0.0, 1.0),
        tl.clamp(factor * green + other, 0.0, 1.0),
        tl.clamp(factor * blue + other, 0.0, 1.0),
    )


@triton.jit
def grey(red, green, blue, apply):
    """Luma in all three channels, if `apply`."""
    if apply:
        red = luma(red, green, blue)
        green, blue = red, red
    return red, green, blue


@triton.jit
def luma(red, green, blue):
    return red * RED + green * GREEN + blue * BLUE


@triton.jit
def rotate_hue(red, green, blue, shift):
    """Rotate the HSV hue by `shift` turns, as in the CPU renderer but scaled by the chroma.

    The hue in sixths of a turn times the chroma (max - min of the channels) needs no division.
    """
    top = tl.maximum(tl.maximum(red, green), blue)
    low = tl.minimum(tl.minimum(red, green), blue)
    chroma = top - low
    is_red, is_green = top == red, top == green
    rise = tl.where(is_red, green - blue, tl.where(is_green, blue - red, red - green))
    turn = 6 * (shift - tl.floor(shift + 0.5))
    hue = rise + chroma * tl.where(is_red, turn, tl.where(is_green, 2 + turn, 4 + turn))
    hue = tl.where(hue > 3 * chroma, hue - 6 * chroma, hue)
    hue = tl.where(hue < -3 * chroma, hue + 6 * chroma, hue)
    beyond = low - chroma
    return (
        tl.clamp(top + chroma - tl.abs(hue), low, top),
        tl.clamp(beyond + tl.abs(hue + chroma), low, top),
        tl.clamp(beyond + tl.abs(hue - chroma), low, top),
    )
