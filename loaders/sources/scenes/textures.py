"""Procedural textures of the objects, one per shape, and patterns that lie over them.

`texture_colour(kind, pattern, part, x, y, d, c, atlas)` is the unlit RGB colour at a point in
object coordinates; `d` is the signed distance there, and `c` is a palette of six colours: four, a
light one and a dark one.
"""

from __future__ import annotations

import math

from patchmill.kernels.common.jit import jit, jit_inline
from patchmill.loaders.sources.scenes.noise import (
    CELL_EDGE,
    CELL_TONE,
    FINE,
    SMOOTH,
    bilinear,
    fast_atan2,
    fast_sin,
    hash01,
    length,
    mix,
    nearest,
    smoothstep,
)

ORIGIN = 4096.0  # offset that keeps atlas coordinates positive
PATTERNS = (
    "plain",
    "striped",
    "dotted",
    "checked",
    "ringed",
    "zigzag",
    "rayed",
    "netted",
    "banded",
    "starry",
)


@jit_inline
def texture_colour(kind, pattern, part, x, y, d, c, atlas):
    if kind == 0:
        rgb = _ball(x, y, c)
    elif kind == 1:
        rgb = _starfish(x, y, d, c, atlas)
    elif kind == 2:
        rgb = _fish(part, x, y, d, c, atlas)
    elif kind == 3:
        rgb = _mushroom(part, x, y, c, atlas)
    elif kind == 4:
        rgb = _flower(part, x, y, c, atlas)
    elif kind == 5:
        rgb = _butterfly(part, x, y, d, c, atlas)
    elif kind == 6:
        rgb = _mug(part, x, y, c, atlas)
    elif kind == 7:
        rgb = _doughnut(x, y, c, atlas)
    elif kind == 8:
        rgb = _cat(part, x, y, c, atlas)
    else:
        rgb = _beetle(part, x, y, c, atlas)
    if pattern > 0:
        inside = _pattern(pattern, x, y)
        rgb = mix(rgb, c[5], 0.85 * smoothstep(-0.06, -0.03, inside))
        rgb = mix(rgb, c[4], 0.95 * smoothstep(-0.01, 0.02, inside))
    grain = bilinear(atlas, FINE, ORIGIN + 210 * x, ORIGIN + 210 * y)
    light = 0.84 + 0.32 * grain
    return rgb[0] * light, rgb[1] * light, rgb[2] * light


@jit
def _ball(x, y, c):
    """A beach ball: segments that meet at a pole."""
    z = math.sqrt(max(1 - x * x - y * y, 0.0))
    px, py, pz = 0.8 * x + 0.6 * z, y, 0.8 * z - 0.6 * x
    px, py = 0.8 * px + 0.6 * py, 0.8 * py - 0.6 * px
    turn = fast_atan2(pz, px) / math.pi * 3 + 3
    segment = math.floor(turn) % 6
    seam = min(turn - math.floor(turn), 1 - turn + math.floor(turn))
    rgb = c[0]
    if segment % 2:
        rgb = mix(c[3], c[4], 0.5)
    elif segment:
        rgb = c[1] if segment == 2 else c[2]
    rgb = mix(rgb, c[5], 0.35 * smoothstep(0.03, 0.01, seam * math.sqrt(max(1 - py * py, 0.0))))
    rgb = mix(rgb, c[4], 0.9 * smoothstep(0.935, 0.945, abs(py)))
    return rgb


@jit
def _starfish(x, y, d, c, atlas):
    edge = bilinear(atlas, CELL_EDGE, ORIGIN + 150 * x, ORIGIN + 150 * y)
    tone = nearest(atlas, CELL_TONE, ORIGIN + 150 * x, ORIGIN + 150 * y)
    rgb = mix(c[0], c[1], smoothstep(-0.05, -0.3, d) * 0.8)
    rgb = mix(rgb, c[2], smoothstep(0.32, 0.5, edge) * (0.25 + 0.6 * tone))
    rgb = mix(rgb, c[5], smoothstep(0.1, 0.0, edge) * 0.25)
    return rgb


@jit
def _fish(part, x, y, d, c, atlas):
    if part == 1:
        rays = bilinear(atlas, FINE, ORIGIN + 40 * x, ORIGIN + 260 * y)
        rgb = mix(c[1], c[2], 0.3 + 0.5 * rays)
        return rgb
    row = math.floor(y / 0.085)
    u = x / 0.1 + 0.5 * (row % 2)
    du, dv = u - math.floor(u), y / 0.085 - row
    arc = length(du - 0.2, 0.8 * (dv - 0.5))
    rgb = mix(c[0], c[1], smoothstep(-0.1, 0.42, y) * 0.9)
    rgb = mix(rgb, c[4], 0.35 * smoothstep(0.5, 0.72, arc) * smoothstep(0.9, 0.7, arc))
    rgb = mix(rgb, c[5], 0.4 * smoothstep(0.74, 0.9, arc))
    bands = fast_sin(9 * x + 2.5 * bilinear(atlas, SMOOTH, ORIGIN + 60 * x, ORIGIN + 60 * y))
    rgb = mix(
        rgb,
        c[3],
        0.75 * smoothstep(0.35, 0.6, bands) * smoothstep(0.5, 0.3, x) * smoothstep(-0.02, -0.1, d),
    )
    if x > 0.52:
        rgb = mix(rgb, c[1], 0.7 * smoothstep(0.52, 0.56, x))
        rgb = mix(rgb, c[5], 0.5 * smoothstep(0.57, 0.53, x))
    eye = length(x - 0.72, y + 0.12)
    rgb = mix(rgb, c[4], smoothstep(0.105, 0.095, eye))
    rgb = mix(rgb, c[5], smoothstep(0.065, 0.055, eye))
    return rgb


@jit
def _mushroom(part, x, y, c, atlas):
    if part == 1:
        fibre = bilinear(atlas, FINE, ORIGIN + 170 * x, ORIGIN + 25 * y)
        rgb = mix(c[4], c[3], 0.3 + 0.5 * fibre + 0.35 * smoothstep(0.3, 0.06, y))
        return rgb
    bulge = 1 / math.sqrt(max(1.15 - x * x - 0.6 * y * y, 0.15))
    u, v = ORIGIN + 62 * x * bulge + 11, ORIGIN + 62 * y * bulge + 37
    spot = smoothstep(0.2, 0.3, bilinear(atlas, CELL_EDGE, u, v)) * (
        1.0 if nearest(atlas, CELL_TONE, u, v) > 0.45 else 0.0
    )
    rgb = mix(c[0], c[1], 0.6 * bilinear(atlas, SMOOTH, ORIGIN + 110 * x, ORIGIN + 110 * y))
    rgb = mix(rgb, c[5], 0.45 * smoothstep(-0.12, 0.12, y))
    rgb = mix(rgb, mix(c[2], c[4], 0.4), spot * 0.92)
    return rgb


@jit
def _flower(part, x, y, c, atlas):
    radius = length(x, y)
    if part == 1:
        edge = bilinear(atlas, CELL_EDGE, ORIGIN + 330 * x, ORIGIN + 330 * y)
        rgb = mix(c[2], c[3], smoothstep(0.1, 0.28, radius) * 0.8)
        rgb = mix(rgb, c[5], 0.5 * smoothstep(0.22, 0.05, edge))
        return rgb
    around = fast_atan2(y, x)
    vein = bilinear(atlas, FINE, ORIGIN + 105 * around, ORIGIN + 26 * radius)
    rgb = mix(c[1], c[0], smoothstep(0.3, 0.95, radius))
    rgb = mix(rgb, c[4], 0.55 * smoothstep(0.5, 0.8, vein) * smoothstep(0.25, 0.7, radius))
    rgb = mix(rgb, c[5], 0.5 * smoothstep(0.4, 0.28, radius) + 0.25 * smoothstep(0.4, 0.2, vein))
    return rgb


@jit
def _butterfly(part, x, y, d, c, atlas):
    if part == 2:
        rgb = mix(c[5], c[2], 0.15 + 0.3 * (fast_sin(40 * y) > 0))
        return rgb
    side = abs(x)
    around, radius = fast_atan2(y + 0.05, side), length(side, y)
    vein = abs(fast_sin(8 * around + 0.6 * fast_sin(5 * radius)))
    dust = bilinear(atlas, FINE, ORIGIN + 60 * side, ORIGIN + 60 * y)
    rgb = mix(c[0] if part == 0 else c[1], c[1], smoothstep(0.7, 0.2, radius) * 0.7)
    rgb = mix(rgb, c[5], 0.8 * smoothstep(0.16, 0.05, vein))
    margin = -0.1 - 0.05 * fast_sin(26 * around) - 0.04 * dust
    rgb = mix(rgb, c[5], 0.8 * smoothstep(margin - 0.02, margin + 0.02, d))
    dots = fast_sin(26 * around) * smoothstep(-0.02, -0.05, d) * smoothstep(-0.13, -0.1, d)
    rgb = mix(rgb, c[4], 0.9 * smoothstep(0.6, 0.8, dots))
    spot = length(side - 0.66, y + (0.44 if part == 0 else -0.5))
    rgb = mix(rgb, c[5], smoothstep(0.14, 0.12, spot))
    rgb = mix(rgb, c[2], smoothstep(0.09, 0.07, spot))
    return rgb


@jit
def _mug(part, x, y, c, atlas):
    if part == 1:
        rgb = mix(c[5], c[3], 0.25 + 0.4 * smoothstep(-0.75, -0.5, y))
        return rgb
    around = (x + 0.2) / 0.66
    around = 2.0 * math.asin(min(max(around, -1.0), 1.0))
    bend = y - 0.13 * math.sqrt(max(1 - ((x + 0.2) / 0.66) ** 2, 0.0))
    glaze = bilinear(atlas, SMOOTH, ORIGIN + 200 * x, ORIGIN + 200 * y)
    rgb = mix(c[0], c[4], 0.15 * glaze)
    if part == 0:
        zigzag = abs(2 * (1.4 * around - math.floor(1.4 * around)) - 1)
        rgb = mix(rgb, c[1], smoothstep(0.025, 0.015, abs(bend - 0.02 - 0.14 * zigzag) - 0.05))
        rgb = mix(rgb, c[2], smoothstep(0.02, 0.01, abs(abs(bend - 0.09) - 0.27) - 0.03))
        rgb = mix(
            rgb, c[4], 0.8 * smoothstep(0.03, 0.0, y + 0.56 + 0.1 * around * around * 0.4) * 0.3
        )
    return rgb


@jit
def _doughnut(x, y, c, atlas):
    radius, around = length(x, y), fast_atan2(y, x)
    crumb = bilinear(atlas, FINE, ORIGIN + 120 * x, ORIGIN + 120 * y)
    rgb = mix(c[2], c[3], 0.5 * crumb + 0.5 * smoothstep(0.8, 1.0, radius))
    ragged = 0.05 * fast_sin(5 * around + 1) + 0.03 * fast_sin(9 * around)
    iced = smoothstep(0.3, 0.27, abs(radius - 0.62) + ragged)
    rgb = mix(rgb, c[0], iced)
    cell = 0.145
    column, row = math.floor(x / cell), math.floor(y / cell)
    turn = math.pi * hash01(column + 64, row + 64, 11)
    px = x / cell - column - 0.35 - 0.3 * hash01(column + 64, row + 64, 12)
    py = y / cell - row - 0.35 - 0.3 * hash01(column + 64, row + 64, 13)
    along = px * math.cos(turn) + py * fast_sin(turn)
    across = py * math.cos(turn) - px * fast_sin(turn)
    sprinkle = length(max(abs(along) - 0.2, 0.0), across)
    pick = hash01(column + 64, row + 64, 14)
    if pick > 0.2 and iced > 0.9 and abs(radius - 0.62) < 0.24:
        rgb = mix(
            rgb,
            c[4] if pick > 0.7 else (c[1] if pick > 0.45 else c[3]),
            smoothstep(0.12, 0.08, sprinkle),
        )
    return rgb


@jit
def _cat(part, x, y, c, atlas):
    side = abs(x)
    around, radius = fast_atan2(x, y - 0.2), length(x, y - 0.2)
    fur = bilinear(atlas, FINE, ORIGIN + 95 * around, ORIGIN + 42 * radius)
    rgb = mix(c[0], c[1], 0.25 + 0.6 * fur)
    stripe = fast_sin(15 * side + 5 * fur) * smoothstep(-0.05, -0.3, y) + fast_sin(
        17 * y + 3 * fur
    ) * smoothstep(0.42, 0.62, side) * smoothstep(-0.2, 0.0, y)
    rgb = mix(rgb, c[2], 0.75 * smoothstep(0.25, 0.6, stripe))
    muzzle = length(side - 0.15, 1.15 * (y - 0.5)) + 0.06 * fur
    rgb = mix(rgb, c[4], 0.85 * smoothstep(0.27, 0.2, muzzle))
    if part == 1:
        rgb = mix(rgb, c[3], 0.6)
    eye = length(side - 0.36, 1.15 * (y - 0.02))
    rgb = mix(rgb, c[5], smoothstep(0.2, 0.18, eye))
    rgb = mix(rgb, c[3], smoothstep(0.17, 0.15, eye))
    rgb = mix(rgb, c[5], smoothstep(0.17, 0.15, eye) * smoothstep(0.055, 0.035, abs(side - 0.36)))
    rgb = mix(
        rgb, c[4], smoothstep(0.045, 0.03, length(x - 0.05 - (0.36 if x > 0 else -0.36), y + 0.06))
    )
    nose = max(abs(x) + 0.8 * (y - 0.4), 0.3 - y) * 1.0
    rgb = mix(rgb, c[2], smoothstep(0.1, 0.08, nose))
    mouth = abs(y - 0.5 - 0.07 * fast_sin(9 * side))
    rgb = mix(rgb, c[5], 0.7 * smoothstep(0.025, 0.01, mouth) * smoothstep(0.3, 0.26, side))
    return rgb


@jit
def _beetle(part, x, y, c, atlas):
    gloss = bilinear(atlas, SMOOTH, ORIGIN + 120 * x, ORIGIN + 120 * y)
    if part == 2:
        rgb = mix(c[3], c[5], 0.5)
        return rgb
    if part == 1:
        rgb = mix(c[3], c[2], 0.1 + 0.5 * gloss)
        cheek = length(abs(x) - 0.26, y + 0.66)
        rgb = mix(rgb, c[4], 0.85 * smoothstep(0.11, 0.09, cheek))
        return rgb
    side = abs(x)
    rgb = mix(c[0], c[1], 0.7 * gloss)
    rgb = mix(rgb, c[5], 0.85 * smoothstep(0.03, 0.015, side))
    spots = min(
        min(length(side - 0.3, y + 0.2), length(side - 0.36, y - 0.28)),
        length(side - 0.2, y - 0.62),
    )
    rgb = mix(rgb, c[3], 0.95 * smoothstep(0.15, 0.13, spots + 0.02 * gloss))
    return rgb


@jit
def _pattern(pattern, x, y):
    """Approximate signed distance from the edge of the pattern: positive on the pattern."""
    radius = length(x, y)
    if pattern == 1:
        return 0.1 - abs(_wave(y + 0.1, 0.4))
    if pattern == 2:
        row = math.floor(y / 0.36)
        return 0.125 - length(_wave(x + 0.18 * (row % 2), 0.42), y - 0.36 * (row + 0.5))
    if pattern == 3:
        across, down = _wave(x, 0.72), _wave(y, 0.72)
        edge = min(abs(abs(across) - 0.18), abs(abs(down) - 0.18))
        return edge if (abs(across) < 0.18) == (abs(down) < 0.18) else -edge
    if pattern == 4:
        return 0.1 - abs(_wave(radius + 0.12, 0.4))
    if pattern == 5:
        return 0.09 - abs(_wave(y + 0.6 * abs(_wave(x, 0.6)), 0.42))
    if pattern == 6:
        sector = math.pi / 5
        return radius * (0.26 * sector - abs(_wave(fast_atan2(y, x), sector)))
    if pattern == 7:
        return 0.07 - min(abs(_wave(x + y, 0.5)), abs(_wave(x - y, 0.5))) * 0.7
    if pattern == 8:
        return 0.28 - abs(x + 0.1)
    u, v = _wave(x, 0.62), _wave(y, 0.62)
    return 0.15 - 0.62 * (math.sqrt(abs(u)) + math.sqrt(abs(v))) ** 2


@jit_inline
def _wave(x, period):
    """Offset from the nearest multiple of the period."""
    return x - period * math.floor(x / period + 0.5)
