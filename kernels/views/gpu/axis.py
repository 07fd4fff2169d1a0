"""Where the pixels of a tile lie on a line that is resampled, along one axis, on the GPU."""

from __future__ import annotations

import triton
import triton.language as tl

FAR = tl.constexpr(1e6)  # out of every filter's reach
LEAST_TOTAL = tl.constexpr(0.1)  # of the weights of any pixel inside; what others have is moot


@triton.jit
def axis(
    length, origin, scale, unit, reach, full, window, first, size, reverse, TILE: tl.constexpr
):  # fmt: skip
    """Which of a line's pixels TILE places from `first` on need, and where they lie among those.

    The line has `length` pixels; the middle of place i lies at origin + (i + 1/2) scale, and the
    filter counts in units of so many pixels and reaches as far as `reach`. All of these are
    doubles: far from the origin only doubles tell neighbouring places apart. What comes back is in
    units of the filter: `place`, counted from the first pixel needed, and the size of a pixel.
    Places outside of 0 to full - 1 are not `inside`.
    """
    step = tl.arange(0, TILE)
    lowest = tl.where(reverse, size - TILE - first, first) + window
    place = lowest + tl.where(reverse, TILE - 1 - step, step)
    inside = (place >= 0) & (place < full)

    least = tl.minimum(tl.maximum(lowest, 0), full - 1)
    most = tl.minimum(tl.maximum(tl.minimum(lowest + TILE, window + size) - 1, 0), full - 1)
    centre = origin + (least.to(tl.float64) + 0.5) * scale
    start = tl.maximum(centre - reach, 0.0).to(tl.int32)
    stop = (origin + (most.to(tl.float64) + 0.5) * scale + reach).to(tl.int32) + 1
    stop = tl.minimum(stop, length)
    shrink = 1 / unit.to(tl.float32)
    place = (centre - start).to(tl.float32) + (place - least).to(tl.float32) * scale.to(tl.float32)
    return start, stop - start, place * shrink, shrink, inside
