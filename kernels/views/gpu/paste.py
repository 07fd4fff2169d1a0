"""Copy-paste on the GPU, inside the `resize` pass: a tile is composited in registers.

A tile of the mask is resampled like one of the image, by two matrix products on tensor cores. A
background image is resampled one channel at a time, which needs few registers besides the tile's.
Reads the tile's footprint once in the mask and three times in the background image; grey levels and
textures are computed.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views import decisions
from patchmill.kernels.views.gpu import fields
from patchmill.kernels.views.gpu.footprint import FAR, MIN_TOTAL, footprint
from patchmill.kernels.views.gpu.pixels import load_inverted_mask, load_rgb

PASTE_NEVER, ON_TEXTURE = tl.constexpr(decisions.PASTE_NEVER), tl.constexpr(decisions.ON_TEXTURE)
ON_IMAGE = tl.constexpr(decisions.ON_IMAGE)
TEXTURES, IMAGES = tl.constexpr(1 << decisions.ON_TEXTURE), tl.constexpr(1 << decisions.ON_IMAGE)
MASK_CHANNEL = tl.constexpr(-1)  # `_resample_plane` reads an inverted mask, not a channel
TAPS = tl.constexpr(16)  # source rows and columns per step: few registers

# Fields of the paste table [N, PASTE_FIELDS] int64, one row per image; doubles as their bits.
PASTE_FIELDS = tl.constexpr(13)
MASK, MASK_PITCH, MASK_H, MASK_W = (tl.constexpr(i) for i in range(4))
MASK_RATIO_Y, MASK_RATIO_X = tl.constexpr(4), tl.constexpr(5)  # mask pixels per image pixel
IMAGE, IMAGE_PITCH, IMAGE_H, IMAGE_W = (tl.constexpr(i) for i in range(6, 10))  # the background's
SHRINK = tl.constexpr(10)  # background pixels per image pixel
ROOM_Y, ROOM_X = tl.constexpr(11), tl.constexpr(12)  # excess of the background, in image pixels


@triton.jit
def paste(
    red, green, blue,  # [TILE, TILE] float32
    entry,  # [PASTE_FIELDS] int64: the image's row of the paste table
    row,  # [FIELDS] int32
    first_y, first_x, size, reverse_y, reverse_x,
    BACKGROUNDS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Composite a tile of a view, before flip and turns, onto the background that the row names.

    BACKGROUNDS has a bit set for each kind of background in the batch; others are not compiled.
    """
    kind = tl.load(row + fields.PASTE)
    has_background = (kind != ON_IMAGE) | (tl.load(entry + IMAGE) != 0)
    if (kind != PASTE_NEVER) & (tl.load(entry + MASK) != 0) & has_background:
        alpha = _background_alpha(
            entry, row, first_y, first_x, size, reverse_y, reverse_x, TILE
        )  # fmt: skip
        level = tl.load(row + fields.BACKGROUND).to(tl.float32) / 255
        # Texture or image: composite here; alpha 0 then disables the grey level below.
        if TEXTURES & BACKGROUNDS:
            if kind == ON_TEXTURE:
                y = _pixel_indices(row, fields.WIN_Y, first_y, size, reverse_y, TILE)[:, None]
                x = _pixel_indices(row, fields.WIN_X, first_x, size, reverse_x, TILE)[None, :]
                back_red, back_green, back_blue = texture(tl.load(row + fields.BACKGROUND), y, x)
                red = alpha * back_red + (1 - alpha) * red
                green = alpha * back_green + (1 - alpha) * green
                blue = alpha * back_blue + (1 - alpha) * blue
                alpha = tl.zeros_like(alpha)
        if IMAGES & BACKGROUNDS:
            if kind == ON_IMAGE:
                red, green, blue = _paste_on_image(
                    red, green, blue, alpha, entry, row, first_y, first_x, size, reverse_y,
                    reverse_x, TILE,
                )  # fmt: skip
                alpha = tl.zeros_like(alpha)
        # Grey level.
        red = alpha * level + (1 - alpha) * red
        green = alpha * level + (1 - alpha) * green
        blue = alpha * level + (1 - alpha) * blue
    return red, green, blue


@triton.jit
def _pixel_indices(
    row,  # [FIELDS] int32
    window, first, size, reverse,
    TILE: tl.constexpr,
):  # fmt: skip
    """Indices of a tile's pixels in the resized box, along one axis."""
    pixel = first + tl.arange(0, TILE)
    return tl.load(row + window) + tl.where(reverse, size - 1 - pixel, pixel)


@triton.jit
def _load_double(
    entry,  # [PASTE_FIELDS] int64
    field: tl.constexpr,
):  # fmt: skip
    return tl.load(entry + field).to(tl.float64, bitcast=True)


@triton.jit
def _resize_step(
    row,  # [FIELDS] int32
    box: tl.constexpr, full: tl.constexpr,
):  # fmt: skip
    """Image pixels from one view pixel to the next."""
    return tl.load(row + box).to(tl.float64) / tl.load(row + full).to(tl.float64)


# ------------------------------------------------------------------------------------------ mask


@triton.jit
def _background_alpha(
    entry,  # [PASTE_FIELDS] int64
    row,  # [FIELDS] int32
    first_y, first_x, size, reverse_y, reverse_x,
    TILE: tl.constexpr,
):  # fmt: skip
    """Alpha of the background at each pixel, [TILE, TILE] in 0..1; 0 outside the image."""
    # Footprint of the tile in the mask.
    blur_sigma = fields.load_float(row, fields.MASK_SIGMA).to(tl.float64)
    start_y, length_y, centre_y, tap_step_y, inside_y = _mask_footprint(
        tl.load(entry + MASK_H).to(tl.int32), _load_double(entry, MASK_RATIO_Y), blur_sigma,
        tl.load(row + fields.BOX_Y), _resize_step(row, fields.BOX_H, fields.FULL_H),
        tl.load(row + fields.FULL_H), tl.load(row + fields.WIN_Y), first_y, size, reverse_y, TILE,
    )  # fmt: skip
    start_x, length_x, centre_x, tap_step_x, inside_x = _mask_footprint(
        tl.load(entry + MASK_W).to(tl.int32), _load_double(entry, MASK_RATIO_X), blur_sigma,
        tl.load(row + fields.BOX_X), _resize_step(row, fields.BOX_W, fields.FULL_W),
        tl.load(row + fields.FULL_W), tl.load(row + fields.WIN_X), first_x, size, reverse_x, TILE,
    )  # fmt: skip
    # Resample the inverted mask.
    pitch = tl.load(entry + MASK_PITCH)
    corner = tl.load(entry + MASK) + start_y * pitch + start_x
    alpha = _resample_plane(
        corner, pitch, length_y, centre_y, tap_step_y, length_x, centre_x, tap_step_x,
        blur_sigma > 0, MASK_CHANNEL, TILE,
    )  # fmt: skip
    alpha = tl.clamp(alpha * (1 / 255), 0.0, 1.0)
    return tl.where(inside_y[:, None] & inside_x[None, :], alpha, 0.0)


@triton.jit
def _mask_footprint(
    length, ratio, blur_sigma, box, step, full, window, first, size, reverse, TILE: tl.constexpr
):  # fmt: skip
    """`footprint` in a mask; a blur widens the filter to a B-spline, as in `reference_paste`."""
    scale = step * ratio
    unit = tl.maximum(scale, 1.0)
    reach = unit
    if blur_sigma > 0:
        sigma = (blur_sigma * ratio).to(tl.float32)
        unit = tl.sqrt(3 * sigma * sigma + 0.5 * (unit * unit).to(tl.float32)).to(tl.float64)
        reach = 2 * unit
    return footprint(
        length, box.to(tl.float64) * ratio, scale, unit, reach, full, window, first, size, reverse,
        TILE,
    )  # fmt: skip


@triton.jit
def _resample_plane(
    corner,  # address of [length_y, length_x] uint8, or of [.., 3] for a channel; `pitch` bytes
    pitch, length_y, centre_y, tap_step_y, length_x, centre_x, tap_step_x, blurred,
    CHANNEL: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A resampled tile, 0 to 255, of one channel of an image or of an inverted mask."""
    y, x = tl.arange(0, TAPS), tl.arange(0, TAPS)
    ones_y = tl.full([TAPS, 16], 1.0, tl.float16)
    ones_x = tl.full([16, TAPS], 1.0, tl.float16)
    total = tl.zeros([TILE, TILE], tl.float32)
    total_x = tl.zeros([16, TILE], tl.float32)
    for left in range(0, length_x, TAPS):
        # Vertical pass over a strip of TAPS columns; the weight sums by a product with ones.
        strip = tl.zeros([TILE, TAPS], tl.float32)
        total_y = tl.zeros([TILE, 16], tl.float32)
        for top in range(0, length_y, TAPS):
            if CHANNEL == MASK_CHANNEL:
                value = load_inverted_mask(
                    corner + left, pitch, top + y, length_y, length_x - left, TAPS
                )  # fmt: skip
                value -= 1024
            else:
                red, green, blue = load_rgb(
                    corner + 3 * left, pitch, top + y, length_y, length_x - left, TAPS
                )  # fmt: skip
                value = red if CHANNEL == 0 else (green if CHANNEL == 1 else blue)
                value -= 1024 + 128
            tap_y = tl.where(top + y < length_y, (top + y + 0.5) * tap_step_y, FAR)
            weights_y = _weights(
                tap_y[None, :], centre_y[:, None], blurred, CHANNEL == MASK_CHANNEL
            )  # fmt: skip
            strip = tl.dot(weights_y, value, strip)
            total_y = tl.dot(weights_y, ones_y, total_y)
        # Horizontal pass: accumulate the normalised strip.
        tap_x = tl.where(left + x < length_x, (left + x + 0.5) * tap_step_x, FAR)
        weights_x = _weights(tap_x[:, None], centre_x[None, :], blurred, CHANNEL == MASK_CHANNEL)
        norm = (1 / tl.maximum(tl.max(total_y, 1), MIN_TOTAL))[:, None]
        total = tl.dot((strip * norm).to(tl.float16), weights_x, total)
        total_x = tl.dot(ones_x, weights_x, total_x)
    # Normalise and undo the offset of 128 that channels were loaded with.
    total *= (1 / tl.maximum(tl.max(total_x, 0), MIN_TOTAL))[None, :]
    return total if CHANNEL == MASK_CHANNEL else total + 128


@triton.jit
def _weights(tap, centre, blurred, CAN_BLUR: tl.constexpr):
    """Unnormalised triangle, or cubic B-spline if `blurred`, at distances in filter units."""
    x = tl.abs(tap - centre)
    near = tl.maximum(1 - x, 0.0)
    if CAN_BLUR:
        if blurred:
            far = tl.maximum(2 - x, 0.0)
            near = far * far * far - 4 * near * near * near
    return near.to(tl.float16)


# ------------------------------------------------------------------------------------ backgrounds


@triton.jit
def _paste_on_image(
    red, green, blue, alpha,  # [TILE, TILE] float32
    entry,  # [PASTE_FIELDS] int64
    row,  # [FIELDS] int32
    first_y, first_x, size, reverse_y, reverse_x,
    TILE: tl.constexpr,
):  # fmt: skip
    """Composite the tile onto a background image, enlarged to cover the pasted image."""
    # Footprint of the tile in the background image.
    shrink = _load_double(entry, SHRINK)
    fraction = fields.load_float(row, fields.BACKGROUND_Y).to(tl.float64)
    scale = _resize_step(row, fields.BOX_H, fields.FULL_H) * shrink
    origin = (tl.load(row + fields.BOX_Y) + fraction * _load_double(entry, ROOM_Y)) * shrink
    unit = tl.maximum(scale, 1.0)
    start_y, length_y, centre_y, tap_step_y, _ = footprint(
        tl.load(entry + IMAGE_H).to(tl.int32), origin, scale, unit, unit,
        tl.load(row + fields.FULL_H), tl.load(row + fields.WIN_Y), first_y, size, reverse_y, TILE,
    )  # fmt: skip
    fraction = fields.load_float(row, fields.BACKGROUND_X).to(tl.float64)
    scale = _resize_step(row, fields.BOX_W, fields.FULL_W) * shrink
    origin = (tl.load(row + fields.BOX_X) + fraction * _load_double(entry, ROOM_X)) * shrink
    unit = tl.maximum(scale, 1.0)
    start_x, length_x, centre_x, tap_step_x, _ = footprint(
        tl.load(entry + IMAGE_W).to(tl.int32), origin, scale, unit, unit,
        tl.load(row + fields.FULL_W), tl.load(row + fields.WIN_X), first_x, size, reverse_x, TILE,
    )  # fmt: skip
    # Resample and composite one channel at a time.
    pitch = tl.load(entry + IMAGE_PITCH)
    corner = tl.load(entry + IMAGE) + start_y * pitch + 3 * start_x
    for channel in tl.static_range(3):
        back = _resample_plane(
            corner, pitch, length_y, centre_y, tap_step_y, length_x, centre_x, tap_step_x, False,
            channel, TILE,
        )  # fmt: skip
        back = alpha * tl.clamp(back * (1 / 255), 0.0, 1.0)
        if channel == 0:
            red = back + (1 - alpha) * red
        elif channel == 1:
            green = back + (1 - alpha) * green
        else:
            blue = back + (1 - alpha) * blue
    return red, green, blue


@triton.jit
def texture(seed, y, x):
    """`reference_paste.texture` in int32 arithmetic; only the low 16 bits matter."""
    first_colour, last_colour = _hash32(seed, 4), _hash32(seed, 5)
    zoom = (first_colour >> 24) & 3
    wave = tl.zeros_like(y + x)
    total = tl.zeros_like(wave)
    for octave in tl.static_range(4):
        bits = _hash32(seed, octave)
        slope_y = ((bits & 1023) - 512) << (octave + zoom)
        slope_x = (((bits >> 10) & 1023) - 512) << (octave + zoom)
        offset, bend = ((bits >> 20) & 255) << 8, (bits >> 28) & 15
        phase = ((slope_y * y + slope_x * x + offset + bend * wave) << 16) >> 16
        magnitude = phase ^ (phase >> 15)
        wave = (phase * (32767 - magnitude)) >> 16
        total += wave >> octave
    fraction = (total + 7680).to(tl.float32) / 15360
    return (
        _interpolate(first_colour, last_colour, fraction),
        _interpolate(first_colour >> 8, last_colour >> 8, fraction),
        _interpolate(first_colour >> 16, last_colour >> 16, fraction),
    )


@triton.jit
def _interpolate(first, last, fraction):
    """Interpolate between the low bytes of two colours, 0..1."""
    a, b = (first & 255).to(tl.float32) / 255, (last & 255).to(tl.float32) / 255
    return a + (b - a) * fraction


@triton.jit
def _hash32(seed, index: tl.constexpr):
    """`reference_paste.hash32`, reinterpreted as int32."""
    bits = seed.to(tl.uint32) + ((index + 1) * 0x9E3779B9) % 0x100000000
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    return (bits ^ (bits >> 16)).to(tl.int32, bitcast=True)
