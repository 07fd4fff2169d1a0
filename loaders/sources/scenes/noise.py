"""Noise for painting scenes: a tileable texture atlas of precomputed noise, and shading helpers.

A lookup takes a few nanoseconds regardless of the number of octaves in it, so a photo-sized scene
takes milliseconds.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from patchmill.kernels.common.jit import jit, jit_inline

SIDE = 512  # texels; a power of two
FINE, SMOOTH, CELL_EDGE, CELL_TONE = 0, 1, 2, 3  # the atlas' layers, all in 0..1
# Unsigned 32-bit arithmetic without negative indices is twice as fast here as plain indexing.
_ONE, _LAST, _ROW, _LAYER = np.uint32(1), np.uint32(SIDE - 1), np.uint32(SIDE), np.uint32(SIDE**2)
_CELLS = 20  # Voronoi cells on each side of the atlas


@functools.cache
def atlas() -> np.ndarray:
    """float32 [4 * SIDE * SIDE]: the layers, concatenated.

    Fine and smooth octave (fractal) noise, and the edge distance and tone of Voronoi cells.
    """
    layers = np.empty((4, SIDE, SIDE), np.float32)
    layers[FINE] = _octave_noise(periods=(32, 64, 128, 256, 512), persistence=0.85)
    layers[SMOOTH] = _octave_noise(periods=(4, 8, 16, 32, 64, 128), persistence=0.5)
    _voronoi_noise(layers[CELL_EDGE], layers[CELL_TONE], _CELLS)
    return layers.reshape(-1)


def _octave_noise(periods: tuple[int, ...], persistence: float) -> np.ndarray:
    """Value noise of several octaves, each weighted `persistence` times the one before."""
    random = np.random.Generator(np.random.Philox(key=len(periods)))
    total, weight = np.zeros((SIDE, SIDE)), 1.0
    for period in periods:
        total += weight * _interpolate(random.random((period, period)))
        weight *= persistence
    standardised = (total - total.mean()) / total.std()
    return np.clip(0.5 + standardised / 5, 0, 1)


def _interpolate(grid: np.ndarray) -> np.ndarray:
    """Upsample a periodic grid to the atlas' size with smoothstep interpolation."""
    period = len(grid)
    at = np.arange(SIDE) * period / SIDE
    low = at.astype(int)
    t = at - low
    t = t * t * (3 - 2 * t)
    high = (low + 1) % period
    rows = grid[low] * (1 - t)[:, None] + grid[high] * t[:, None]
    return rows[:, low] * (1 - t) + rows[:, high] * t


@jit
def _voronoi_noise(edge, tone, cells):
    """Voronoi cells of a jittered grid: second-nearest minus nearest point distance, and tone."""
    width = SIDE / cells
    for y in range(SIDE):
        for x in range(SIDE):
            cx, cy = int(x / width), int(y / width)
            first, second, cell_tone = 9.0, 9.0, 0.0
            for gy in range(cy - 1, cy + 2):
                for gx in range(cx - 1, cx + 2):
                    wx, wy = gx % cells, gy % cells
                    px = gx + 0.1 + 0.8 * hash01(wx, wy, 1)
                    py = gy + 0.1 + 0.8 * hash01(wx, wy, 2)
                    distance = math.hypot(px - x / width, py - y / width)
                    if distance < first:
                        first, second, cell_tone = distance, first, hash01(wx, wy, 3)
                    elif distance < second:
                        second = distance
            edge[y, x] = min(second - first, 1.0)
            tone[y, x] = cell_tone


@jit_inline
def hash01(x, y, salt):
    """Hash three integers to a pseudo-random number in 0..1."""
    h = np.uint32(x) * np.uint32(0x9E3779B1) ^ np.uint32(y) * np.uint32(0x85EBCA77)
    h ^= np.uint32(salt) * np.uint32(0xC2B2AE3D)
    h = np.uint32(h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    h = np.uint32(h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39)
    return np.uint32(h ^ (h >> np.uint32(15))) * (1.0 / 4294967296.0)


@jit
def bilinear(atlas, layer, x, y):
    """Sample a layer at texel coordinates (>= 0): bilinear, periodic."""
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
def nearest(atlas, layer, x, y):
    """Sample the nearest texel (coordinates >= 0): for cell tones, which must not be blended."""
    row = (np.uint32(np.int32(y)) & _LAST) * _ROW
    return atlas[np.uint32(layer) * _LAYER | row | np.uint32(np.int32(x)) & _LAST]


@jit
def mix(a, b, t, light=1.0):
    """Interpolate RGB colours from a to b, times `light`. Tuples stay in registers."""
    return (
        (a[0] + (b[0] - a[0]) * t) * light,
        (a[1] + (b[1] - a[1]) * t) * light,
        (a[2] + (b[2] - a[2]) * t) * light,
    )


@jit
def smoothstep(low, high, x):
    """Hermite interpolation: 0 below `low`, 1 above `high`; falling if low > high."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


# Approximations to 0.1 %, several times faster than the library's.


@jit
def length(x, y):
    return math.sqrt(x * x + y * y)


@jit
def fast_sin(x):
    """Approximate sine."""
    t = x * (0.5 / math.pi)
    t -= math.floor(t + 0.5)
    s = t * (8 - 16 * abs(t))
    return s * (0.775 + 0.225 * abs(s))


@jit
def fast_atan2(y, x):
    """Approximate atan2(y, x)."""
    flat, tall = abs(x), abs(y)
    t = min(flat, tall) / max(max(flat, tall), 1e-9)
    q = t * t
    a = t * (0.99978 + q * (-0.32581 + q * (0.15559 - 0.0443 * q)))
    a = 0.5 * math.pi - a if tall > flat else a
    a = math.pi - a if x < 0 else a
    return -a if y < 0 else a
