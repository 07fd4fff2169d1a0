"""Palettes of the objects: one for each class, and ones drawn independently of the class.

A palette has six colours: four, a light one and a dark one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Colour = tuple[float, float, float]
Palette = tuple[Colour, ...]

# Palette of each class, in the order of the shapes.
OWN: tuple[Palette, ...] = (
    ((0.86, 0.16, 0.14), (0.15, 0.4, 0.8), (0.98, 0.8, 0.18), (0.2, 0.62, 0.35)),  # ball
    ((0.88, 0.36, 0.14), (0.97, 0.58, 0.25), (0.99, 0.84, 0.58), (0.6, 0.2, 0.1)),  # starfish
    ((0.95, 0.55, 0.12), (0.99, 0.8, 0.45), (0.75, 0.25, 0.1), (0.97, 0.96, 0.92)),  # fish
    ((0.82, 0.12, 0.1), (0.66, 0.06, 0.07), (0.9, 0.85, 0.7), (0.62, 0.52, 0.38)),  # mushroom
    ((0.88, 0.35, 0.62), (0.62, 0.12, 0.42), (0.99, 0.8, 0.2), (0.65, 0.38, 0.08)),  # flower
    ((0.96, 0.56, 0.1), (0.99, 0.78, 0.25), (0.35, 0.55, 0.9), (0.4, 0.2, 0.1)),  # butterfly
    ((0.2, 0.5, 0.62), (0.97, 0.88, 0.65), (0.88, 0.4, 0.25), (0.4, 0.22, 0.12)),  # mug
    ((0.95, 0.52, 0.68), (0.35, 0.75, 0.85), (0.78, 0.52, 0.26), (0.6, 0.36, 0.15)),  # doughnut
    ((0.62, 0.5, 0.38), (0.85, 0.76, 0.64), (0.25, 0.19, 0.15), (0.55, 0.72, 0.3)),  # cat
    ((0.8, 0.1, 0.08), (0.93, 0.25, 0.1), (0.4, 0.38, 0.4), (0.2, 0.2, 0.2)),  # beetle
)
_MORE: tuple[Palette, ...] = (
    ((0.1, 0.22, 0.42), (0.2, 0.52, 0.7), (0.93, 0.9, 0.78), (0.9, 0.38, 0.27)),  # harbour
    ((0.28, 0.42, 0.3), (0.58, 0.66, 0.36), (0.95, 0.86, 0.58), (0.78, 0.3, 0.2)),  # orchard
    ((0.36, 0.2, 0.46), (0.68, 0.42, 0.72), (0.96, 0.72, 0.6), (0.99, 0.9, 0.66)),  # dusk
    ((0.13, 0.45, 0.42), (0.35, 0.72, 0.6), (0.97, 0.86, 0.44), (0.93, 0.5, 0.24)),  # lagoon
    ((0.22, 0.24, 0.3), (0.5, 0.55, 0.62), (0.82, 0.85, 0.86), (0.94, 0.68, 0.2)),  # slate
    ((0.5, 0.12, 0.2), (0.82, 0.42, 0.42), (0.95, 0.8, 0.72), (0.36, 0.46, 0.4)),  # rose
    ((0.74, 0.6, 0.28), (0.9, 0.8, 0.5), (0.3, 0.34, 0.2), (0.55, 0.26, 0.16)),  # savanna
    ((0.55, 0.82, 0.9), (0.96, 0.7, 0.8), (0.99, 0.93, 0.62), (0.66, 0.62, 0.86)),  # pastels
    ((0.05, 0.3, 0.24), (0.72, 0.58, 0.24), (0.86, 0.82, 0.7), (0.45, 0.1, 0.12)),  # emerald
    ((0.98, 0.42, 0.3), (0.2, 0.66, 0.66), (0.99, 0.78, 0.3), (0.26, 0.26, 0.42)),  # carnival
    ((0.34, 0.3, 0.28), (0.56, 0.46, 0.38), (0.78, 0.68, 0.56), (0.92, 0.86, 0.76)),  # bark
    ((0.16, 0.2, 0.62), (0.4, 0.5, 0.92), (0.84, 0.88, 0.98), (0.98, 0.84, 0.28)),  # cobalt
)
POOL = (*OWN, *_MORE)
LIGHT, DARK = (0.95, 0.94, 0.9), (0.06, 0.05, 0.06)


def draw(kind: int, bias: float, rng: np.random.Generator) -> Palette:
    """The palette of an object of class `kind`: that of its class with probability `bias`.

    Consumes the same random numbers in all cases, so that the palettes drawn after it do not
    change.
    """
    is_own = rng.random() < bias
    turns, light = rng.uniform(-0.035, 0.035), rng.uniform(0.85, 1.15)
    any_palette = _any_palette(rng)
    if not is_own:
        return any_palette
    pattern, shape = divmod(kind, len(OWN))
    return (*tint(OWN[shape], 0.381 * pattern + turns, light), LIGHT, DARK)


def _any_palette(rng: np.random.Generator) -> Palette:
    """A palette from the pool, hue-rotated and shuffled, with light and dark tints."""
    chosen = POOL[rng.integers(len(POOL))]
    turned = np.array(tint(chosen, rng.random(), rng.uniform(0.8, 1.2)))
    turned = turned[rng.permutation(len(turned))]
    lights, darks = turned[rng.integers(4, size=2)]
    light = np.array(LIGHT) * (1 - 0.25 * rng.random() * (1 - lights))
    dark = np.array(DARK) + 0.3 * rng.random() * darks
    ends = (dark, light) if rng.random() < 0.5 else (light, dark)
    return tuple(map(tuple, np.stack([*turned, *ends]).tolist()))


def tint(colours: Sequence[Colour], turns: float, light: float) -> Palette:
    """Rotate hues by `turns` around the grey axis, times `light`."""
    c, s = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns) / math.sqrt(3)
    d = (1 - c) / 3
    matrix = np.array([[c + d, d - s, d + s], [d + s, c + d, d - s], [d - s, d + s, c + d]])
    return tuple(map(tuple, np.clip(np.array(colours) @ matrix.T * light, 0.01, 1.0).tolist()))
