"""Footprint of a tile along one axis of a resample: source range and filter coordinates."""

from __future__ import annotations

import triton
import triton.language as tl

FAR = tl.constexpr(1e6)  # coordinate beyond the support of every filter: weight 0
MIN_TOTAL = tl.constexpr(0.1)  # lower bound on weight sums; only pixels outside fall below it


@triton.jit
def footprint(
    length, origin, scale, unit, reach, full, window, first, size, reverse, TILE: tl.constexpr
):  # fmt: skip
    """Source range of TILE output pixels from `first` on, and their positions in filter units.

    The source line has `length` pixels. Output pixel i is centred at origin + (i + 1/2) scale; the
    filter is stretched to `unit` source pixels and reaches `reach` of them to either side. These
    are float64: far from the origin, float32 cannot resolve neighbouring centres.

    Returns the first source pixel, the number of source pixels, the tile's centres relative to the
    first source pixel and the size of a source pixel (both in filter units), and the mask of
    pixels inside 0 .. full - 1.
    """
    # Pixel indices of the tile in the resized line, mirrored if reversed.
    step = tl.arange(0, TILE)
    lowest = tl.where(reverse, size - TILE - first, first) + window
    pixel = lowest + tl.where(reverse, TILE - 1 - step, step)
    inside = (pixel >= 0) & (pixel < full)

    # Source range from the supports of the outermost pixels inside.
    low = tl.minimum(tl.maximum(lowest, 0), full - 1)
    high = tl.minimum(tl.maximum(tl.minimum(lowest + TILE, window + size) - 1, 0), full - 1)
    centre = origin + (low.to(tl.float64) + 0.5) * scale
    start = tl.maximum(centre - reach, 0.0).to(tl.int32)
    stop = (origin + (high.to(tl.float64) + 0.5) * scale + reach).to(tl.int32) + 1
    stop = tl.minimum(stop, length)

    # Centres relative to `start`, small enough for float32.
    tap_step = 1 / unit.to(tl.float32)
    centre = (centre - start).to(tl.float32) + (pixel - low).to(tl.float32) * scale.to(tl.float32)
    return start, stop - start, centre * tap_step, tap_step, inside
