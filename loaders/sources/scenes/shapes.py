"""Object shapes as signed distance functions: ten classes in object coordinates.

`signed_distance(kind, x, y)` returns (distance, part): the distance is negative inside, and the
part number selects the texture. Objects are upright, with y pointing down and a radius of about 1;
callers rotate, scale and place them.
"""

from __future__ import annotations

import math

from patchmill.kernels.common.jit import jit, jit_inline
from patchmill.loaders.sources.scenes.noise import fast_atan2, fast_sin, length

SHAPES = (
    "ball",
    "starfish",
    "fish",
    "mushroom",
    "flower",
    "butterfly",
    "mug",
    "doughnut",
    "cat",
    "beetle",
)
# Bounding radius of each class.
MAX_RADIUS = (1.01, 1.13, 1.26, 1.12, 1.05, 1.27, 1.07, 1.01, 1.18, 1.28)
# Area of each class, in object coordinates.
AREA = (3.14, 1.86, 1.64, 2.14, 2.32, 2.58, 2.1, 2.85, 2.33, 2.06)


@jit_inline
def signed_distance(kind, x, y):
    if kind == 0:
        return length(x, y) - 1.0, 0
    if kind == 1:
        return _starfish(x, y)
    if kind == 2:
        return _fish(x, y)
    if kind == 3:
        return _mushroom(x, y)
    if kind == 4:
        return _flower(x, y)
    if kind == 5:
        return _butterfly(x, y)
    if kind == 6:
        return _mug(x, y)
    if kind == 7:
        return abs(length(x, y) - 0.63) - 0.36, 0
    if kind == 8:
        return _cat(x, y)
    return _beetle(x, y)


@jit
def _ellipse(x, y, a, b):
    """Approximate signed distance to an axis-aligned ellipse; exact on its boundary."""
    k = length(x / a, y / b)
    return k * (k - 1.0) / max(length(x / (a * a), y / (b * b)), 1e-6)


@jit
def _capsule(x, y, x0, y0, x1, y1, r0, r1):
    """Signed distance to a tapered capsule between two points with radii r0 and r1."""
    dx, dy = x1 - x0, y1 - y0
    t = min(max(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0), 1.0)
    return length(x - x0 - t * dx, y - y0 - t * dy) - (r0 + (r1 - r0) * t)


@jit
def _smooth_union(a, b, soft):
    """Smooth minimum: the union of two shapes, blended over `soft` where they meet."""
    h = max(soft - abs(a - b), 0.0) / soft
    return min(a, b) - h * h * soft * 0.25


@jit
def _fold_sectors(x, y, arms):
    """Fold the point into one of `arms` equal sectors: (distance along the arm, across it)."""
    sector = 2 * math.pi / arms
    turn = sector * math.floor(fast_atan2(x, -y) / sector + 0.5)
    c, s = fast_sin(turn + 0.5 * math.pi), fast_sin(turn)
    return s * x - c * y, abs(c * x + s * y)


@jit
def _starfish(x, y):
    along, across = _fold_sectors(x, y, 5)
    arm = _capsule(along, across, 0.0, 0.0, 0.98, 0.0, 0.4, 0.12)
    turn = 2 * math.pi / 5
    c, s = math.cos(turn), fast_sin(turn)
    other = _capsule(along, across, 0.0, 0.0, 0.98 * c, 0.98 * s, 0.4, 0.12)
    return _smooth_union(arm, other, 0.14), 0


@jit
def _fish(x, y):
    """Parts: 0 body, 1 fins."""
    body = _ellipse(x - 0.16, y, 0.84, 0.47)
    tail = min(
        _capsule(x, y, -0.55, 0.0, -1.0, -0.38, 0.1, 0.16),
        _capsule(x, y, -0.55, 0.0, -1.0, 0.38, 0.1, 0.16),
    )
    fins = min(
        _capsule(x, y, 0.2, -0.36, -0.22, -0.56, 0.14, 0.07),
        _capsule(x, y, 0.1, 0.38, -0.12, 0.56, 0.1, 0.05),
    )
    fins = min(tail, fins)
    return _smooth_union(body, fins, 0.08), (0 if body < fins + 0.02 else 1)


@jit
def _mushroom(x, y):
    """Parts: 0 cap, 1 stem."""
    cap = max(_ellipse(x, y + 0.02, 1.0, 0.86), y - 0.06 - 0.08 * math.sqrt(max(1 - x * x, 0.0)))
    stem = _capsule(x, y, 0.0, 0.0, 0.03, 0.74, 0.25, 0.33)
    return min(cap, stem), (0 if cap < 0.0 else 1)


@jit
def _flower(x, y):
    """Parts: 0 petals, 1 heart."""
    along, across = _fold_sectors(x, y, 7)
    petal = _ellipse(along - 0.6, across, 0.42, 0.25)
    heart = length(x, y) - 0.29
    return min(petal, heart), (1 if heart < 0.0 else 0)


@jit
def _butterfly(x, y):
    """Parts: 0 upper wings, 1 lower wings, 2 body."""
    side = abs(x)
    p, q = side - 0.55, y + 0.36
    upper = _ellipse(0.82 * p - 0.57 * q, 0.57 * p + 0.82 * q, 0.6, 0.4)
    p, q = side - 0.42, y - 0.4
    lower = _ellipse(0.75 * p + 0.66 * q, -0.66 * p + 0.75 * q, 0.48, 0.35)
    body = _capsule(side, y, 0.0, -0.42, 0.0, 0.5, 0.09, 0.05)
    feeler = _capsule(side, y, 0.02, -0.45, 0.24, -0.86, 0.025, 0.035)
    body = min(body, feeler)
    wings = min(upper, lower)
    return min(wings, body), (2 if body < 0.0 else (0 if upper < lower else 1))


@jit
def _mug(x, y):
    """Parts: 0 outside, 1 opening, 2 handle."""
    taper = 0.6 - 0.06 * y
    px, py = max(abs(x + 0.2) - taper + 0.1, 0.0), max(abs(y - 0.06) - 0.72 + 0.1, 0.0)
    wall = length(px, py) - 0.1
    opening = _ellipse(x + 0.2, y + 0.62, 0.64, 0.2)
    handle = abs(_ellipse(x - 0.45, y - 0.02, 0.36, 0.4)) - 0.1
    solid = min(wall, opening)
    part = 1 if opening < -0.05 else (0 if solid < 0.0 else 2)
    return min(solid, handle), part


@jit
def _cat(x, y):
    """Parts: 0 face, 1 inside of the ears."""
    side = abs(x)
    face = _ellipse(side, y - 0.12, 0.86, 0.74)
    ear = _capsule(side, y, 0.5, -0.32, 0.68, -0.86, 0.34, 0.07)
    inner = _capsule(side, y, 0.54, -0.4, 0.67, -0.8, 0.2, 0.02)
    return _smooth_union(face, ear, 0.12), (1 if inner < 0.0 and face > -0.12 else 0)


@jit
def _beetle(x, y):
    """Parts: 0 wing cases, 1 head and neck shield, 2 legs."""
    side = abs(x)
    shell = _ellipse(side, y - 0.14, 0.62, 0.8)
    head = min(_ellipse(side, y + 0.62, 0.44, 0.24), _ellipse(side, y + 0.86, 0.25, 0.2))
    legs = min(
        min(
            _capsule(side, y, 0.4, -0.3, 0.86, -0.52, 0.06, 0.035),
            _capsule(side, y, 0.5, 0.15, 1.0, 0.2, 0.06, 0.035),
        ),
        min(
            _capsule(side, y, 0.45, 0.5, 0.84, 0.86, 0.06, 0.035),
            _capsule(side, y, 0.08, -0.98, 0.3, -1.18, 0.025, 0.02),
        ),
    )
    part = 0 if shell < 0.0 else (1 if head < 0.0 else 2)
    return min(min(shell, head), legs), part
