"""The noise that scenes are painted with: one tileable atlas, looked up at any coordinate.

A look-up costs a few nanoseconds whatever the number of octaves behind it, which is what makes a
photo-sized scene take milliseconds.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from patchmill.kernels.common.jit import jit

SIDE = 512  # texels; a power of two
FINE, SMOOTH, EDGE, CELL = 0, 1, 2, 3  # the atlas' layers, all in 0..1
# Unsigned 32-bit arithmetic without negative indices is twice as fast here as plain indexing.
_ONE, _LAST, _ROW, _LAYER = np.uint32(1), np.uint32(SIDE - 1), np.uint32(SIDE), np.uint32(SIDE**2)
_CELLS = 20  # the cells of EDGE and CELL: 20 x 20 in the atlas


@functools.cache
def atlas() -> np.ndarray:
    """float32 [4 * SIDE * SIDE], the layers one after the other.

    Fine and smooth octave noise, the cells' distance from their edges, and the cells' tones.
    """
    layers = np.empty((4, SIDE, SIDE), np.float32)
    layers[FINE] = _octaves(periods=(32, 64, 128, 256, 512), fall=0.85)
    layers[SMOOTH] = _octaves(periods=(4, 8, 16, 32, 64, 128), fall=0.5)
    _cells(layers[EDGE], layers[CELL], _CELLS)
    return layers.reshape(-1)


def _octaves(periods: tuple[int, ...], fall: float) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(key=len(periods)))
    total, weight = np.zeros((SIDE, SIDE)), 1.0
    for period in periods:
        total += weight * _stretched(random.random((period, period)))
        weight *= fall
    ranks = (total - total.mean()) / total.std()
    return np.clip(0.5 + ranks / 5, 0, 1)


def _stretched(grid: np.ndarray) -> np.ndarray:
    """A periodic grid interpolated smoothly to the atlas' size."""
    period = len(grid)
    at = np.arange(SIDE) * period / SIDE
    low = at.astype(int)
    share = at - low
    share = share * share * (3 - 2 * share)
    high = (low + 1) % period
    rows = grid[low] * (1 - share)[:, None] + grid[high] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, high] * share


@jit
def _cells(edge, tone, cells):
    """Voronoi cells of a jittered grid: how much nearer the nearest point is, and its tone."""
    width = SIDE / cells
    for y in range(SIDE):
        for x in range(SIDE):
            cx, cy = int(x / width), int(y / width)
            first, second, owner = 9.0, 9.0, 0.0
            for gy in range(cy - 1, cy + 2):
                for gx in range(cx - 1, cx + 2):
                    wx, wy = gx % cells, gy % cells
                    px = gx + 0.1 + 0.8 * chance(wx, wy, 1)
                    py = gy + 0.1 + 0.8 * chance(wx, wy, 2)
                    away = math.hypot(px - x / width, py - y / width)
                    if away < first:
                        first, second, owner = away, first, chance(wx, wy, 3)
                    elif away < second:
                        second = away
            edge[y, x] = min(second - first, 1.0)
            tone[y, x] = owner


@jit
def chance(x, y, salt):
    """A number in 0..1 that looks random and depends on three integers."""
    h = np.uint32(x) * np.uint32(0x9E3779B1) ^ np.uint32(y) * np.uint32(0x85EBCA77)
    h ^= np.uint32(salt) * np.uint32(0xC2B2AE3D)
    h = np.uint32(h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    h = np.uint32(h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39)
    return np.uint32(h ^ (h >> np.uint32(15))) * (1.0 / 4294967296.0)


@jit
def look(atlas, layer, x, y):
    """The atlas' value at a texel coordinate (>= 0), bilinear and periodic."""
    x, y = np.float32(x), np.float32(y)
    ix, iy = np.int32(x), np.int32(y)
    tx, ty = x - np.float32(ix), y - np.float32(iy)
    x0, y0 = np.uint32(ix) & _LAST, (np.uint32(iy) & _LAST) * _ROW
    x1, y1 = (x0 + _ONE) & _LAST, (y0 + _ROW) & (_LAYER - _ONE)
    start = np.uint32(layer) * _LAYER
    top, low = atlas[start | y0 | x0], atlas[start | y1 | x0]
    top += (atlas[start | y0 | x1] - top) * tx
    low += (atlas[start | y1 | x1] - low) * tx
    return top + (low - top) * ty


@jit
def peek(atlas, layer, x, y):
    """The nearest texel of a coordinate (>= 0): for cell tones, which must not be blended."""
    row = (np.uint32(np.int32(y)) & _LAST) * _ROW
    return atlas[np.uint32(layer) * _LAYER | row | np.uint32(np.int32(x)) & _LAST]


@jit
def mix(a, b, share, light=1.0):
    """The RGB colour between a and b, lit. Colours are tuples, which stay in registers."""
    return (
        (a[0] + (b[0] - a[0]) * share) * light,
        (a[1] + (b[1] - a[1]) * share) * light,
        (a[2] + (b[2] - a[2]) * share) * light,
    )


@jit
def step(low, high, x):
    """0 below `low`, 1 above `high`, smooth between."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


# Good to 0.1 % at a fraction of the library's price: nobody measures a painted scene's angles.


@jit
def length(x, y):
    return math.sqrt(x * x + y * y)


@jit
def wave(x):
    """The sine of x."""
    t = x * (0.5 / math.pi)
    t -= math.floor(t + 0.5)
    s = t * (8 - 16 * abs(t))
    return s * (0.775 + 0.225 * abs(s))


@jit
def angle(y, x):
    """The angle of the point (x, y), as atan2 gives it."""
    flat, tall = abs(x), abs(y)
    t = min(flat, tall) / max(max(flat, tall), 1e-9)
    q = t * t
    a = t * (0.99978 + q * (-0.32581 + q * (0.15559 - 0.0443 * q)))
    a = 0.5 * math.pi - a if tall > flat else a
    a = math.pi - a if x < 0 else a
    return -a if y < 0 else a
