"""Draws shaded objects onto a background and applies the camera model.

Canvases are float32 [height, width, 3], 0..1.
"""

from __future__ import annotations

import math

import numpy as np

from patchmill.kernels.common.jit import jit, jit_inline
from patchmill.loaders.sources.scenes.noise import smoothstep
from patchmill.loaders.sources.scenes.shapes import MAX_RADIUS, signed_distance
from patchmill.loaders.sources.scenes.textures import texture_colour

# Bevel width of each class, from its boundary inwards: 1 is a sphere, near 0 is flat.
BEVEL = (1.0, 0.34, 0.45, 0.55, 0.2, 0.07, 0.3, 0.36, 0.6, 0.55)
GLOSS = (0.5, 0.08, 0.35, 0.3, 0.05, 0.05, 0.5, 0.35, 0.03, 0.7)
# Contrast of each class's texture, which makes brightness vary equally over objects of all classes.
CONTRAST = (0.8, 1.4, 1.0, 1.0, 1.28, 1.0, 1.04, 1.2, 1.0, 0.9)

SHADOW_BLUR = 0.1  # distance over which a shadow fades out beyond its object's boundary


@jit
def draw_object(canvas, object_map, number, atlas, kind, pattern, pose, colours, light, finish):
    """Draw one object and its shadow; sets `object_map` to `number` where coverage is >= 0.5.

    pose: centre x, y and radius in pixels, rotation in radians, mirror (-1 or 1), height / width.
    light: direction x, y to the light (y downwards), shadow strength, shadow length in radii.
    finish: bevel, gloss and contrast.
    """
    bevel, gloss, contrast = finish
    height, width = object_map.shape
    middle = _mean(colours)
    cx, cy, radius, turn, mirror, squash = pose
    cos, sin = math.cos(turn), math.sin(turn)
    bound = (MAX_RADIUS[kind] + SHADOW_BLUR) * max(squash, 1.0)
    reach = radius * bound + 2
    shift_x, shift_y = -light[0] * light[3] * radius, -light[1] * light[3] * radius
    margin = max(abs(shift_x), abs(shift_y))
    left, right = max(int(cx - reach - margin), 0), min(int(cx + reach + margin) + 2, width)
    top, bottom = max(int(cy - reach - margin), 0), min(int(cy + reach + margin) + 2, height)
    if left >= right or top >= bottom:
        return

    # Signed distances, with a border of one pixel for the gradients.
    rows, columns = bottom - top + 2, right - left + 2
    distance = np.full((rows, columns), np.float32(9.0))
    part = np.zeros((rows, columns), np.uint8)
    for j in range(rows):
        for i in range(columns):
            px, py = (left + i - 1 - cx) / radius, (top + j - 1 - cy) / radius
            if px * px + py * py < bound * bound:
                x, y = (cos * px + sin * py) * mirror, (cos * py - sin * px) / squash
                d, p = signed_distance(kind, x, y)
                distance[j, i] = d
                part[j, i] = p

    for j in range(1, rows - 1):
        for i in range(1, columns - 1):
            d = distance[j, i]
            coverage = min(max(0.5 - d * radius * min(squash, 1.0), 0.0), 1.0)
            if coverage < 1.0:
                si = min(max(int(i - shift_x), 0), columns - 1)
                sj = min(max(int(j - shift_y), 0), rows - 1)
                if distance[sj, si] < SHADOW_BLUR:
                    dark = 1 - light[2] * smoothstep(SHADOW_BLUR, -0.18, distance[sj, si])
                    for k in range(3):
                        canvas[top + j - 1, left + i - 1, k] *= dark
            if coverage > 0.0:
                px, py = (left + i - 1 - cx) / radius, (top + j - 1 - cy) / radius
                x, y = (cos * px + sin * py) * mirror, (cos * py - sin * px) / squash
                colour = texture_colour(kind, pattern, part[j, i], x, y, d, colours, atlas)
                slope_x = 0.5 * radius * (distance[j, i + 1] - distance[j, i - 1])
                slope_y = 0.5 * radius * (distance[j + 1, i] - distance[j - 1, i])
                diffuse, specular = _shade(d, slope_x, slope_y, light, bevel)
                for k in range(3):
                    at = canvas[top + j - 1, left + i - 1, k]
                    tone = max(middle[k] + contrast * (colour[k] - middle[k]), 0.01)
                    lit = tone * diffuse + gloss * specular
                    canvas[top + j - 1, left + i - 1, k] = at + (lit - at) * coverage
            if coverage >= 0.5:
                object_map[top + j - 1, left + i - 1] = number


@jit_inline
def _mean(c):
    red, green, blue = 0.0, 0.0, 0.0
    for colour in c:
        red, green, blue = red + colour[0], green + colour[1], blue + colour[2]
    return red / len(c), green / len(c), blue / len(c)


@jit_inline
def _shade(d, slope_x, slope_y, light, bevel):
    """(diffuse, specular) light on a surface with a quarter-circle bevel along its boundary."""
    inward = 1 - min(max(-d / bevel, 0.0), 1.0)
    rise = inward / math.sqrt(max(1 - inward * inward, 0.04))
    nx, ny = slope_x * rise, slope_y * rise
    facing = 0.62 * light[0] * nx + 0.62 * light[1] * ny + 0.72
    facing /= math.sqrt(nx * nx + ny * ny + 1)
    shine = max(facing, 0.0)
    for _ in range(4):
        shine *= shine
    return 0.42 + 0.78 * max(facing, 0.0), 0.9 * shine


@jit
def box_blur(canvas, buffer, radius):
    """Defocus: two passes of a separable box blur, with `buffer` as scratch memory."""
    for _ in range(2):
        _blur_rows(canvas, buffer, radius)
        _blur_columns(buffer, canvas, radius)


@jit_inline
def _blur_rows(source, target, radius):
    height, width = source.shape[0], source.shape[1]
    weight = np.float32(1 / (2 * radius + 1))
    for y in range(height):
        row, line = source[y], target[y]
        r = g = b = np.float32(0)
        for x in range(-radius, radius + 1):
            at = min(max(x, 0), width - 1)
            r, g, b = r + row[at, 0], g + row[at, 1], b + row[at, 2]
        for x in range(width):
            line[x, 0], line[x, 1], line[x, 2] = r * weight, g * weight, b * weight
            enters, leaves = min(x + radius + 1, width - 1), max(x - radius, 0)
            r += row[enters, 0] - row[leaves, 0]
            g += row[enters, 1] - row[leaves, 1]
            b += row[enters, 2] - row[leaves, 2]


@jit_inline
def _blur_columns(source, target, radius):
    height, width = source.shape[0], source.shape[1]
    weight = np.float32(1 / (2 * radius + 1))
    total = np.zeros((width, 3), np.float32)
    for y in range(-radius, radius + 1):
        total += source[min(max(y, 0), height - 1)]
    for y in range(height):
        enters, leaves = source[min(y + radius + 1, height - 1)], source[max(y - radius, 0)]
        for x in range(width):
            for k in range(3):
                target[y, x, k] = total[x, k] * weight
                total[x, k] += enters[x, k] - leaves[x, k]


@jit
def downsample(canvas, factor):
    """Box filter: the mean of every factor x factor block."""
    height, width = canvas.shape[0] // factor, canvas.shape[1] // factor
    small = np.zeros((height, width, 3), np.float32)
    for y in range(height * factor):
        for x in range(width * factor):
            for k in range(3):
                small[y // factor, x // factor, k] += canvas[y, x, k]
    return small * np.float32(1 / factor**2)


@jit
def develop(canvas, luma, chroma, contrast, gains, vignette, start):
    """Camera model to uint8: vignette, white balance, S-shaped tone curve, sensor noise.

    luma, chroma: noise tables of interleaved values; every row starts at a different offset.
    """
    height, width = canvas.shape[0], canvas.shape[1]
    values = 3 * width
    gain, falloff = np.empty(values, np.float32), np.empty(values, np.float32)
    scale = 4.0 * vignette / (height * height + width * width)
    for i in range(values):
        gain[i] = gains[i % 3]
        falloff[i] = 1 - scale * (i // 3 - 0.5 * width) ** 2
    photo = np.empty((height, width, 3), np.uint8)
    one, curve = np.float32(1.0), np.float32(contrast)
    for y in range(height):
        at = (start + y * 7919) % (len(luma) // 3 - width) * 3
        bright, tint = luma[at : at + values], chroma[at : at + values]
        row, line = canvas[y].reshape(-1), photo[y].reshape(-1)
        down = np.float32(scale * (y - 0.5 * height) ** 2)
        for i in range(values):
            t = min(max(row[i] * gain[i] * (falloff[i] - down), np.float32(0.0)), one)
            t += curve * (t * t * (np.float32(3.0) - (t + t)) - t)
            value = np.float32(255.0) * t + bright[i] + tint[i] + np.float32(0.5)
            line[i] = np.uint8(np.int32(min(max(value, np.float32(0.0)), np.float32(255.0))))
    return photo
