"""Copy-paste on the GPU: inside the resize, whose tile gets its background in registers.

A tile of the mask is sampled as one of the picture is, by two products of matrices on tensor cores;
a companion's by each of its channels alone, which takes few registers beside the tile. Reads what
the tile needs of the mask, and of a companion three times; levels and textures come from nowhere.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views import decisions
from patchmill.kernels.views.gpu import decisions as field
from patchmill.kernels.views.gpu.axis import FAR, LEAST_TOTAL, axis
from patchmill.kernels.views.gpu.pixels import holes, pixels

PASTE_NEVER, ON_TEXTURE = tl.constexpr(decisions.PASTE_NEVER), tl.constexpr(decisions.ON_TEXTURE)
ON_IMAGE = tl.constexpr(decisions.ON_IMAGE)
TEXTURES, IMAGES = tl.constexpr(1 << decisions.ON_TEXTURE), tl.constexpr(1 << decisions.ON_IMAGE)
MASK_HOLES = tl.constexpr(-1)  # for a channel
PIECE = tl.constexpr(16)  # a product takes as many pixels of a plane, either way: few registers

# Of the table [N, 13] int64 that says for each image what it can be pasted with; doubles as bits.
FIELDS = tl.constexpr(13)
MASK, MASK_PITCH, MASK_H, MASK_W = (tl.constexpr(i) for i in range(4))
RATIO_Y, RATIO_X = tl.constexpr(4), tl.constexpr(5)  # pixels of the mask to one of the image
GROUND, GROUND_PITCH, GROUND_H, GROUND_W = (tl.constexpr(i) for i in range(6, 10))
SHRINK = tl.constexpr(10)  # pixels of the companion to one of the image
ROOM_Y, ROOM_X = tl.constexpr(11), tl.constexpr(12)  # pixels of the image that it is larger by


@triton.jit
def paste(
    red, green, blue, pasted, row, first_y, first_x, size, reverse_y, reverse_x,
    PASTES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A tile of a view, neither flipped nor turned; PASTES has a bit for each background in use."""
    kind = tl.load(row + field.PASTE)
    has_ground = (kind != ON_IMAGE) | (tl.load(pasted + GROUND) != 0)
    if (kind != PASTE_NEVER) & (tl.load(pasted + MASK) != 0) & has_ground:
        share = _shown(
            pasted, row, first_y, first_x, size, reverse_y, reverse_x, TILE
        )  # fmt: skip
        level = tl.load(row + field.GROUND).to(tl.float32) / 255
        if TEXTURES & PASTES:
            if kind == ON_TEXTURE:
                y = _places(row, field.WIN_Y, first_y, size, reverse_y, TILE)[:, None]
                x = _places(row, field.WIN_X, first_x, size, reverse_x, TILE)[None, :]
                back_red, back_green, back_blue = texture(tl.load(row + field.GROUND), y, x)
                red = share * back_red + (1 - share) * red
                green = share * back_green + (1 - share) * green
                blue = share * back_blue + (1 - share) * blue
                share = tl.zeros_like(share)
        if IMAGES & PASTES:
            if kind == ON_IMAGE:
                red, green, blue = _behind(
                    red, green, blue, share, pasted, row, first_y, first_x, size, reverse_y,
                    reverse_x, TILE,
                )  # fmt: skip
                share = tl.zeros_like(share)
        red = share * level + (1 - share) * red
        green = share * level + (1 - share) * green
        blue = share * level + (1 - share) * blue
    return red, green, blue


@triton.jit
def _places(row, window, first, size, reverse, TILE: tl.constexpr):
    place = first + tl.arange(0, TILE)
    return tl.load(row + window) + tl.where(reverse, size - 1 - place, place)


@triton.jit
def _double(table, number: tl.constexpr):
    return tl.load(table + number).to(tl.float64, bitcast=True)


@triton.jit
def _step(row, box: tl.constexpr, full: tl.constexpr):
    return tl.load(row + box).to(tl.float64) / tl.load(row + full).to(tl.float64)


# --------------------------------------------------------------------------------------- the mask


@triton.jit
def _shown(
    pasted, row, first_y, first_x, size, reverse_y, reverse_x,
    TILE: tl.constexpr,
):  # fmt: skip
    """The background's share of each pixel, 0 to 1; none outside of the image."""
    soft = field.number(row, field.SOFT).to(tl.float64)
    start_y, length_y, place_y, shrink_y, inside_y = _mask_axis(
        tl.load(pasted + MASK_H).to(tl.int32), _double(pasted, RATIO_Y), soft,
        tl.load(row + field.BOX_Y), _step(row, field.BOX_H, field.FULL_H),
        tl.load(row + field.FULL_H), tl.load(row + field.WIN_Y), first_y, size, reverse_y, TILE,
    )  # fmt: skip
    start_x, length_x, place_x, shrink_x, inside_x = _mask_axis(
        tl.load(pasted + MASK_W).to(tl.int32), _double(pasted, RATIO_X), soft,
        tl.load(row + field.BOX_X), _step(row, field.BOX_W, field.FULL_W),
        tl.load(row + field.FULL_W), tl.load(row + field.WIN_X), first_x, size, reverse_x, TILE,
    )  # fmt: skip
    pitch = tl.load(pasted + MASK_PITCH)
    corner = tl.load(pasted + MASK) + start_y * pitch + start_x
    share = _plane(
        corner, pitch, length_y, place_y, shrink_y, length_x, place_x, shrink_x, soft > 0,
        MASK_HOLES, TILE,
    )  # fmt: skip
    share = tl.clamp(share * (1 / 255), 0.0, 1.0)
    return tl.where(inside_y[:, None] & inside_x[None, :], share, 0.0)


@triton.jit
def _mask_axis(
    length, ratio, soft, box, step, full, window, first, size, reverse, TILE: tl.constexpr
):  # fmt: skip
    scale = step * ratio
    unit = tl.maximum(scale, 1.0)
    reach = unit
    if soft > 0:
        wide = (soft * ratio).to(tl.float32)
        unit = tl.sqrt(3 * wide * wide + 0.5 * (unit * unit).to(tl.float32)).to(tl.float64)
        reach = 2 * unit
    return axis(
        length, box.to(tl.float64) * ratio, scale, unit, reach, full, window, first, size, reverse,
        TILE,
    )  # fmt: skip


@triton.jit
def _plane(
    corner, pitch, length_y, place_y, shrink_y, length_x, place_x, shrink_x, soft,
    CHANNEL: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A tile of samples, 0 to 255, of one channel of an image, or of what a mask leaves."""
    y, x = tl.arange(0, PIECE), tl.arange(0, PIECE)
    ones_y = tl.full([PIECE, 16], 1.0, tl.float16)
    ones_x = tl.full([16, PIECE], 1.0, tl.float16)
    total = tl.zeros([TILE, TILE], tl.float32)
    total_x = tl.zeros([16, TILE], tl.float32)
    for left in range(0, length_x, PIECE):
        strip = tl.zeros([TILE, PIECE], tl.float32)
        total_y = tl.zeros([TILE, 16], tl.float32)
        for top in range(0, length_y, PIECE):
            if CHANNEL == MASK_HOLES:
                value = holes(corner + left, pitch, top + y, length_y, length_x - left, PIECE)
                value -= 1024
            else:
                red, green, blue = pixels(
                    corner + 3 * left, pitch, top + y, length_y, length_x - left, PIECE
                )  # fmt: skip
                value = red if CHANNEL == 0 else (green if CHANNEL == 1 else blue)
                value -= 1024 + 128
            tap_y = tl.where(top + y < length_y, (top + y + 0.5) * shrink_y, FAR)
            down = _weights(tap_y[None, :], place_y[:, None], soft, CHANNEL == MASK_HOLES)
            strip = tl.dot(down, value, strip)
            total_y = tl.dot(down, ones_y, total_y)
        tap_x = tl.where(left + x < length_x, (left + x + 0.5) * shrink_x, FAR)
        across = _weights(tap_x[:, None], place_x[None, :], soft, CHANNEL == MASK_HOLES)
        share = (1 / tl.maximum(tl.max(total_y, 1), LEAST_TOTAL))[:, None]
        total = tl.dot((strip * share).to(tl.float16), across, total)
        total_x = tl.dot(ones_x, across, total_x)
    total *= (1 / tl.maximum(tl.max(total_x, 0), LEAST_TOTAL))[None, :]
    return total if CHANNEL == MASK_HOLES else total + 128


@triton.jit
def _weights(tap, place, soft, SOFTENS: tl.constexpr):
    """The triangle, or the cubic B-spline, at distances in units of its own: not of sum one."""
    x = tl.abs(tap - place)
    near = tl.maximum(1 - x, 0.0)
    if SOFTENS:
        if soft:
            far = tl.maximum(2 - x, 0.0)
            near = far * far * far - 4 * near * near * near
    return near.to(tl.float16)


# ------------------------------------------------------------------------------------ backgrounds


@triton.jit
def _behind(
    red, green, blue, share, pasted, row, first_y, first_x, size, reverse_y, reverse_x,
    TILE: tl.constexpr,
):  # fmt: skip
    """The tile on another image, as large as its own at least."""
    shrink, own = _double(pasted, SHRINK), field.number(row, field.GROUND_Y).to(tl.float64)
    scale = _step(row, field.BOX_H, field.FULL_H) * shrink
    origin = (tl.load(row + field.BOX_Y) + own * _double(pasted, ROOM_Y)) * shrink
    unit = tl.maximum(scale, 1.0)
    start_y, length_y, place_y, shrink_y, _ = axis(
        tl.load(pasted + GROUND_H).to(tl.int32), origin, scale, unit, unit,
        tl.load(row + field.FULL_H), tl.load(row + field.WIN_Y), first_y, size, reverse_y, TILE,
    )  # fmt: skip
    own = field.number(row, field.GROUND_X).to(tl.float64)
    scale = _step(row, field.BOX_W, field.FULL_W) * shrink
    origin = (tl.load(row + field.BOX_X) + own * _double(pasted, ROOM_X)) * shrink
    unit = tl.maximum(scale, 1.0)
    start_x, length_x, place_x, shrink_x, _ = axis(
        tl.load(pasted + GROUND_W).to(tl.int32), origin, scale, unit, unit,
        tl.load(row + field.FULL_W), tl.load(row + field.WIN_X), first_x, size, reverse_x, TILE,
    )  # fmt: skip
    pitch = tl.load(pasted + GROUND_PITCH)
    corner = tl.load(pasted + GROUND) + start_y * pitch + 3 * start_x
    for channel in tl.static_range(3):
        back = _plane(
            corner, pitch, length_y, place_y, shrink_y, length_x, place_x, shrink_x, False,
            channel, TILE,
        )  # fmt: skip
        back = share * tl.clamp(back * (1 / 255), 0.0, 1.0)
        if channel == 0:
            red = back + (1 - share) * red
        elif channel == 1:
            green = back + (1 - share) * green
        else:
            blue = back + (1 - share) * blue
    return red, green, blue


@triton.jit
def texture(seed, y, x):
    """See `reference_paste.texture`: whole numbers, of which only the lowest 16 bits count."""
    front, back = _hashed(seed, 4), _hashed(seed, 5)
    zoom = (front >> 24) & 3
    wave = tl.zeros_like(y + x)
    total = tl.zeros_like(wave)
    for octave in tl.static_range(4):
        bits = _hashed(seed, octave)
        slope_y = ((bits & 1023) - 512) << (octave + zoom)
        slope_x = (((bits >> 10) & 1023) - 512) << (octave + zoom)
        phase, bend = ((bits >> 20) & 255) << 8, (bits >> 28) & 15
        turn = ((slope_y * y + slope_x * x + phase + bend * wave) << 16) >> 16
        fold = turn ^ (turn >> 15)
        wave = (turn * (32767 - fold)) >> 16
        total += wave >> octave
    share = (total + 7680).to(tl.float32) / 15360
    return (
        _between(front, back, share),
        _between(front >> 8, back >> 8, share),
        _between(front >> 16, back >> 16, share),
    )


@triton.jit
def _between(front, back, share):
    a, b = (front & 255).to(tl.float32) / 255, (back & 255).to(tl.float32) / 255
    return a + (b - a) * share


@triton.jit
def _hashed(seed, index: tl.constexpr):
    """As `reference_paste.hashed`, its 32 bits as those of a signed number."""
    bits = seed.to(tl.uint32) + ((index + 1) * 0x9E3779B9) % 0x100000000
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    return (bits ^ (bits >> 16)).to(tl.int32, bitcast=True)
