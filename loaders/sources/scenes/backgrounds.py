"""Procedural backgrounds: ten kinds of scenery, shaded pixel by pixel from the noise atlas.

Every painter fills `canvas` (float32 [height, width, 3], 0..1) and has the same arguments: the
atlas; `c`, the palette, a tuple of RGB colours; `scale`, texels per pixel; `ox` and `oy`, the
scene's offset in the atlas; and `horizon`, the row of the horizon (0 for kinds without one).
"""

from __future__ import annotations

import math

from patchmill.kernels.common.jit import jit
from patchmill.loaders.sources.scenes.noise import (
    CELL_EDGE,
    CELL_TONE,
    FINE,
    SMOOTH,
    bilinear,
    fast_sin,
    hash01,
    mix,
    nearest,
    smoothstep,
)


@jit
def _set_pixel(canvas, y, x, colour):
    canvas[y, x, 0], canvas[y, x, 1], canvas[y, x, 2] = colour


@jit
def sky(canvas, atlas, c, scale, ox, oy, horizon):
    """Colours: zenith, haze, cloud, shaded cloud."""
    height, width = canvas.shape[0], canvas.shape[1]
    rows = min(height, horizon + 2)
    for y in range(rows):
        down = y / max(horizon, 1)
        depth = 0.35 / (0.25 + max(horizon - y, 0) * scale / 400)
        for x in range(width):
            u, v = ox + x * scale * (0.5 + 0.35 * depth), oy + y * scale * (0.9 + depth)
            thick = bilinear(atlas, SMOOTH, u, v) + 0.18 * (
                bilinear(atlas, SMOOTH, 4 * u, 4 * v) - 0.5
            )
            lit = thick - bilinear(atlas, SMOOTH, u + 9, v - 14)
            rgb = mix(c[0], c[1], down * down, 1.0)
            rgb = mix(rgb, c[2], smoothstep(0.46, 0.78, thick))
            rgb = mix(rgb, c[3], smoothstep(0.5, 0.9, thick) * smoothstep(-0.1, 0.25, -lit) * 0.8)
            _set_pixel(canvas, y, x, rgb)


@jit
def meadow(canvas, atlas, c, scale, ox, oy, horizon):
    """Colours: shaded blade, lit blade, dry blade, flower, distant meadow."""
    height, width = canvas.shape[0], canvas.shape[1]
    for y in range(horizon, height):
        t = (y - horizon) / (height - horizon)
        depth = 1 / (0.13 + t)
        far = smoothstep(1.5, 6.0, depth)
        for x in range(width):
            across, u = x * scale, ox + (x - width / 2) * scale * depth
            v = oy + 380 * depth
            patch = bilinear(atlas, SMOOTH, 0.7 * u, 2 * v)
            lean = 14 * bilinear(atlas, SMOOTH, 1.7 * u, 3 * v)
            blades = bilinear(
                atlas, FINE, 1.3 * across * (0.6 + 0.4 * depth) + lean, 0.16 * y * scale * depth
            )
            fine = bilinear(atlas, FINE, 2.9 * across + lean, 0.5 * y * scale + 77)
            brightness = 0.62 * blades + 0.38 * fine + 0.5 * (patch - 0.5)
            rgb = mix(c[0], c[1], smoothstep(0.22, 0.82, brightness), 0.65 + 0.5 * fine + 0.25 * t)
            rgb = mix(rgb, c[2], smoothstep(0.55, 0.95, patch) * smoothstep(0.4, 0.8, fine) * 0.6)
            rgb = mix(rgb, c[4], far * 0.75)
            if (
                nearest(atlas, CELL_TONE, 2.1 * u, 1.4 * v) > 0.86
                and bilinear(atlas, CELL_EDGE, 2.1 * u, 1.4 * v) > 0.5
            ):
                rgb = mix(rgb, c[3], (1 - 0.6 * far) * smoothstep(0.3, 0.6, fine))
            _set_pixel(canvas, y, x, rgb)


@jit
def water(canvas, atlas, c, scale, ox, oy, horizon):
    """Colours: deep water, reflected sky, foam, glitter."""
    height, width = canvas.shape[0], canvas.shape[1]
    sun = ox % width
    for y in range(horizon, height):
        t = (y - horizon) / (height - horizon)
        depth = 1 / (0.1 + t)
        v = oy + 520 * depth
        for x in range(width):
            u = ox + (x - width / 2) * scale * depth
            swell = bilinear(atlas, SMOOTH, 1.5 * u, 2.6 * v) - bilinear(
                atlas, SMOOTH, 1.5 * u, 2.6 * v + 7
            )
            ripple = bilinear(atlas, FINE, 0.5 * u, 1.1 * v) - bilinear(
                atlas, FINE, 0.5 * u, 1.1 * v + 2
            )
            slope = 3.2 * swell + (0.2 + 0.55 * t) * ripple
            rgb = mix(c[0], c[1], smoothstep(-0.75, 0.8, slope - 0.75 * t + 0.4), 1.0)
            rgb = mix(rgb, c[2], smoothstep(0.62, 0.85, slope) * 0.7)
            near = 1 / (1 + ((x - sun) / (0.1 * width)) ** 2) ** 2
            rgb = mix(rgb, c[3], near * smoothstep(0.1, 0.4, slope))
            _set_pixel(canvas, y, x, rgb)


@jit
def sand(canvas, atlas, c, scale, ox, oy, horizon):
    """Colours: shaded sand, lit sand, dark grain, light grain, haze."""
    height, width = canvas.shape[0], canvas.shape[1]
    for y in range(horizon, height):
        t = (y - horizon) / (height - horizon)
        depth = 1 / (0.2 + t)
        v = oy + 300 * depth
        for x in range(width):
            u = ox + (x - width / 2) * scale * depth
            dune = bilinear(atlas, SMOOTH, 0.5 * u, 0.6 * v)
            side = dune - bilinear(atlas, SMOOTH, 0.5 * u + 6, 0.6 * v + 2)
            warp = 16 * bilinear(atlas, SMOOTH, 1.9 * u, 1.2 * v)
            ripple = fast_sin(0.34 * v + 0.11 * u + warp) * smoothstep(6, 1.2, depth)
            grain = bilinear(atlas, FINE, 2.7 * x * scale, 2.7 * y * scale)
            rgb = mix(
                c[0], c[1], smoothstep(-0.5, 0.5, 5 * side + 0.16 * ripple), 0.8 + 0.4 * grain
            )
            rgb = mix(rgb, c[2], smoothstep(0.78, 0.9, grain) * 0.6 * t)
            rgb = mix(rgb, c[3], smoothstep(0.25, 0.1, grain) * 0.6 * t)
            rgb = mix(rgb, c[4], 0.5 * (1 - t) ** 3)
            _set_pixel(canvas, y, x, rgb)


@jit
def mountains(canvas, atlas, c, scale, ox, oy, horizon):
    """Layered ridges below a sky. Colours: near rock, distant haze, snow, wood."""
    height, width = canvas.shape[0], canvas.shape[1]
    for x in range(width):
        floor = height  # top of the ridge in front
        for layer in range(3, -1, -1):
            near = layer / 3
            u = ox + x * scale * (0.55 + 0.2 * layer) + 131 * layer
            crest = bilinear(atlas, SMOOTH, u, oy + 90 * layer) - 0.5
            crest += 0.12 * (bilinear(atlas, FINE, 0.35 * u, oy + 50 * layer) - 0.5)
            top = horizon + (near * 0.75 - 0.15 - 0.5 * (1.2 - near) * crest) * (height - horizon)
            for y in range(max(int(top), 0), floor):
                w, v = u * 1.4, oy + y * scale
                rough = bilinear(atlas, FINE, w + 0.6 * v, 0.8 * v)
                side = bilinear(atlas, SMOOTH, 2 * w, 2 * v) - bilinear(
                    atlas, SMOOTH, 2 * w + 9, 2 * v - 5
                )
                below = (y - top) / height
                light = 0.55 + 0.6 * rough + 2 * side
                rgb = mix(c[0], c[3], smoothstep(0.05, 0.3, below) * near, light)
                white = smoothstep(0.2, 0.0, below + 0.25 * (rough - 0.5) + 0.35 * near)
                rgb = mix(rgb, c[2], white * smoothstep(-0.2, 0.1, side) * 0.9)
                rgb = mix(rgb, c[1], 0.72 * (1 - near))
                _set_pixel(canvas, y, x, rgb)
            floor = min(floor, max(int(top), 0))


@jit
def foliage(canvas, atlas, c, scale, ox, oy, horizon):
    """Layers of leaves. Colours: deep shade, leaf, lit leaf, autumn leaf."""
    height, width = canvas.shape[0], canvas.shape[1]
    for y in range(height):
        for x in range(width):
            u, v = ox + x * scale, oy + y * scale
            light = 1.5 * bilinear(atlas, SMOOTH, 0.8 * u, 0.8 * v) - 0.1
            bend = 16 * bilinear(atlas, SMOOTH, 2 * u, 2 * v)
            rgb = mix(c[0], c[1], 0.15 + 0.2 * bilinear(atlas, FINE, u, v), 0.6 + 0.5 * light)
            for layer in range(3):
                a = 0.75 * (1.15 - 0.22 * layer)
                p = a * (u + 0.6 * v) + 57 * layer + bend
                q = 0.62 * a * (v - 0.6 * u) + 91 * layer - bend
                edge, tone = bilinear(atlas, CELL_EDGE, p, q), nearest(atlas, CELL_TONE, p, q)
                if tone < 0.35 + 0.15 * layer and edge > 0.12:
                    vein = bilinear(atlas, FINE, 2 * p, 0.6 * q)
                    glow = (0.35 + 0.3 * layer) * light * (0.55 + 0.7 * edge + 0.45 * (vein - 0.5))
                    rgb = mix(c[1], c[2], tone * 1.6, 0.25 + 1.1 * glow)
                    if tone < 0.03:
                        rgb = mix(rgb, c[3], 0.7 * glow)
            _set_pixel(canvas, y, x, rgb)


@jit
def pebbles(canvas, atlas, c, scale, ox, oy, horizon):
    """Colours: gap, dark stone, light stone, warm stone."""
    height, width = canvas.shape[0], canvas.shape[1]
    for y in range(height):
        for x in range(width):
            u, v = ox + x * scale, oy + y * scale
            big = 0.62
            bend = 10 * bilinear(atlas, SMOOTH, 3 * u, 3 * v)
            p, q = big * u + bend, big * v - bend
            edge, tone = bilinear(atlas, CELL_EDGE, p, q), nearest(atlas, CELL_TONE, p, q)
            if edge < 0.1:
                p, q = 1.9 * u + 31, 1.9 * v + 83
                edge, tone = 0.6 * bilinear(atlas, CELL_EDGE, p, q), nearest(atlas, CELL_TONE, p, q)
            bulge = edge - bilinear(atlas, CELL_EDGE, p + 2.5, q + 3.5)
            grain = bilinear(atlas, FINE, 1.6 * u, 1.6 * v)
            spots = bilinear(atlas, SMOOTH, 7 * u + 99 * tone, 7 * v)
            light = 0.62 + 0.5 * smoothstep(0.05, 0.5, edge) + 0.9 * bulge + 0.35 * (grain - 0.5)
            rgb = mix(c[1], c[2], smoothstep(0.1, 0.9, tone) + 0.5 * (spots - 0.5), light)
            if tone > 0.72:
                rgb = mix(rgb, c[3], 0.45 * light)
            rgb = mix(rgb, c[0], smoothstep(0.12, 0.02, edge) * 0.85)
            _set_pixel(canvas, y, x, rgb)


@jit
def bricks(canvas, atlas, c, scale, ox, oy, horizon):
    """Colours: mortar, brick, second brick, burnt brick."""
    height, width = canvas.shape[0], canvas.shape[1]
    tall, wide, gap = 33.0, 88.0, 3.0
    for y in range(height):
        for x in range(width):
            u, v = ox + x * scale, oy + y * scale
            wobble = bilinear(atlas, SMOOTH, 4 * u, 4 * v)
            rough = bilinear(atlas, FINE, 1.3 * u, 1.3 * v)
            pitted = bilinear(atlas, FINE, 0.4 * u + 40, 0.4 * v)
            row = math.floor((v + 3 * wobble) / tall)
            along = u + 3 * wobble + (row % 2) * wide / 2
            column = math.floor(along / wide)
            dx, dy = along - column * wide, v + 3 * wobble - row * tall
            inside = min(min(dx, wide - dx), min(dy, tall - dy)) - gap + 3 * (rough - 0.5)
            tone = hash01(row, column, 7)
            rim = smoothstep(4, 0, inside) * (0.3 if dy < tall / 2 else -0.25)
            stain = 0.7 + 0.5 * bilinear(atlas, SMOOTH, 0.6 * u, 0.6 * v)
            light = (0.72 + 0.42 * rough + 0.25 * (pitted - 0.5)) * (1 + rim)
            rgb = mix(c[1], c[2], tone, light)
            if hash01(row, column, 8) > 0.85:
                rgb = mix(rgb, c[3], 0.7 * light)
            rgb = mix(rgb, c[0], smoothstep(1.0, -1.0, inside) * (0.75 + 0.25 * rough), 1.0)
            _set_pixel(canvas, y, x, mix(rgb, rgb, 0.0, stain))


@jit
def planks(canvas, atlas, c, scale, ox, oy, horizon):
    """Colours: dark grain, wood, light wood, gap."""
    height, width = canvas.shape[0], canvas.shape[1]
    board = 74.0
    for y in range(height):
        for x in range(width):
            u, v = ox + x * scale, oy + y * scale
            number = math.floor(v / board)
            tone = hash01(number, 3, 5)
            dy = v - number * board
            w = u + 700 * tone
            knot = bilinear(atlas, SMOOTH, 0.5 * w, 1.6 * v + 300 * tone)
            rings = fast_sin(0.55 * dy * (0.6 + tone) + 34 * knot + 5 * tone)
            fibre = bilinear(atlas, FINE, 0.14 * w, 1.7 * v + 200 * tone)
            pores = bilinear(atlas, FINE, 0.3 * w + 50, 3.1 * v)
            brightness = 0.5 + 0.28 * rings + 0.9 * (fibre - 0.5)
            rgb = mix(
                c[1], c[2], tone * 0.7 + 0.3 * brightness, 0.75 + 0.3 * tone + 0.22 * (pores - 0.5)
            )
            rgb = mix(
                rgb,
                c[0],
                smoothstep(0.55, 0.0, brightness) * 0.65 + smoothstep(0.3, 0.12, pores) * 0.4,
            )
            rgb = mix(rgb, c[3], smoothstep(3.2, 1.0, min(dy, board - dy)) * 0.9)
            end = w % 620
            rgb = mix(rgb, c[3], smoothstep(2.2, 0.8, end) * 0.8)
            _set_pixel(canvas, y, x, rgb)


@jit
def cloth(canvas, atlas, c, scale, ox, oy, horizon):
    """Woven tartan with folds. Colours: base, broad stripe, narrow stripe, thin line."""
    height, width = canvas.shape[0], canvas.shape[1]
    thread, sett = 4.4, 132.0
    for y in range(height):
        for x in range(width):
            fold = bilinear(atlas, SMOOTH, 0.55 * (ox + x * scale), 0.4 * (oy + y * scale))
            u, v = ox + x * scale + 26 * fold, oy + y * scale + 20 * fold
            side = fold - bilinear(
                atlas, SMOOTH, 0.55 * (ox + x * scale) + 5, 0.4 * (oy + y * scale) + 3
            )
            column, row = math.floor(u / thread), math.floor(v / thread)
            over = (column + row) % 4 < 2
            at = (u if over else v) % sett
            fibre = (
                bilinear(atlas, FINE, 0.8 * u, 2.6 * v)
                if over
                else bilinear(atlas, FINE, 2.6 * u, 0.8 * v)
            )
            across = (u / thread - column) if over else (v / thread - row)
            light = 0.62 + 0.5 * (1 - (2 * across - 1) ** 2) * 0.6 + 0.35 * (fibre - 0.3) + 5 * side
            colour = c[0]
            if at < 46:
                colour = c[1]
            elif 74 < at < 84 or 106 < at < 116:
                colour = c[2]
            elif 94 < at < 97:
                colour = c[3]
            rgb = mix(colour, colour, 0.0, light)
            _set_pixel(canvas, y, x, rgb)


# (name, painter, True if a sky is painted above it first)
PAINTERS = (
    ("meadow", meadow, True),
    ("water", water, True),
    ("bricks", bricks, False),
    ("sand", sand, True),
    ("planks", planks, False),
    ("foliage", foliage, False),
    ("sky", sky, False),
    ("pebbles", pebbles, False),
    ("mountains", mountains, True),
    ("cloth", cloth, False),
)

PALETTES = {
    "sky": [
        (0.25, 0.47, 0.78),
        (0.72, 0.83, 0.92),
        (0.97, 0.97, 0.97),
        (0.62, 0.66, 0.74),
        (0.0, 0.0, 0.0),
    ],
    "meadow": [
        (0.1, 0.2, 0.06),
        (0.45, 0.62, 0.18),
        (0.72, 0.66, 0.32),
        (0.98, 0.9, 0.5),
        (0.48, 0.6, 0.38),
    ],
    "water": [
        (0.03, 0.19, 0.3),
        (0.42, 0.63, 0.76),
        (0.9, 0.95, 0.97),
        (1.0, 0.97, 0.86),
        (0.0, 0.0, 0.0),
    ],
    "bricks": [
        (0.72, 0.68, 0.62),
        (0.56, 0.23, 0.16),
        (0.7, 0.36, 0.24),
        (0.33, 0.17, 0.15),
        (0.0, 0.0, 0.0),
    ],
    "sand": [
        (0.55, 0.39, 0.24),
        (0.92, 0.77, 0.55),
        (0.3, 0.2, 0.12),
        (1.0, 0.94, 0.8),
        (0.9, 0.84, 0.75),
    ],
    "planks": [
        (0.28, 0.16, 0.08),
        (0.5, 0.32, 0.18),
        (0.74, 0.54, 0.34),
        (0.08, 0.05, 0.03),
        (0.0, 0.0, 0.0),
    ],
    "foliage": [
        (0.02, 0.07, 0.03),
        (0.1, 0.28, 0.07),
        (0.46, 0.66, 0.18),
        (0.85, 0.62, 0.2),
        (0.0, 0.0, 0.0),
    ],
    "pebbles": [
        (0.1, 0.09, 0.08),
        (0.35, 0.35, 0.36),
        (0.76, 0.74, 0.7),
        (0.66, 0.5, 0.36),
        (0.0, 0.0, 0.0),
    ],
    "mountains": [
        (0.3, 0.28, 0.28),
        (0.66, 0.74, 0.84),
        (0.97, 0.98, 1.0),
        (0.16, 0.27, 0.15),
        (0.0, 0.0, 0.0),
    ],
    "cloth": [
        (0.2, 0.22, 0.36),
        (0.55, 0.14, 0.16),
        (0.85, 0.8, 0.68),
        (0.95, 0.75, 0.25),
        (0.0, 0.0, 0.0),
    ],
}
