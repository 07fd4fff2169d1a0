"""The end of a view on the GPU: solarise, normalise, convert, in the tensor's own layout.

Also the planes that lie between two passes, at the same place in the workspace as the view in the
batch: 6 bytes a pixel, as float16 numbers around zero, which are the finest there.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views import decisions
from patchmill.kernels.views.gpu import decisions as field

SOLARISE_FROM = tl.constexpr(decisions.SOLARISE_FROM)


@triton.jit
def finish(red, green, blue, row, scales, out, at, pixel, seen, area, CHANNELS_LAST: tl.constexpr):
    """Write a [H, W] piece of a view to the batch; `pixel` are its places in a plane."""
    if tl.load(row + field.SOLARISE) != 0:
        red, green, blue = _solarise(red), _solarise(green), _solarise(blue)
    red, green = _number(red, scales, 0, out), _number(green, scales, 1, out)
    blue = _number(blue, scales, 2, out)
    out += at
    if CHANNELS_LAST:
        # Side by side in registers, so that neighbouring threads write neighbouring numbers.
        four = tl.join(tl.join(red, blue), tl.join(green, green))
        four = tl.reshape(four, [red.shape[0], red.shape[1], 4])
        channel = tl.arange(0, 4)[None, None, :]
        tl.store(out + (pixel[:, :, None] * 3 + channel), four, seen[:, :, None] & (channel < 3))
    else:
        tl.store(out + pixel, red, seen)
        tl.store(out + (pixel + area), green, seen)
        tl.store(out + (pixel + 2 * area), blue, seen)


@triton.jit
def _solarise(value):
    return tl.where(value >= SOLARISE_FROM, 1 - value, value)


@triton.jit
def _number(value, scales, channel: tl.constexpr, out):
    value = value * tl.load(scales + channel) + tl.load(scales + 3 + channel)
    if out.dtype.element_ty == tl.uint8:
        value += 0.5
    return value.to(out.dtype.element_ty)


@triton.jit
def keep(red, green, blue, planes, at, pixel, seen, area):
    """Put a piece of a view aside for the next pass."""
    planes += at
    tl.store(planes + pixel, (red - 0.5).to(tl.float16), seen)
    tl.store(planes + (pixel + area), (green - 0.5).to(tl.float16), seen)
    tl.store(planes + (pixel + 2 * area), (blue - 0.5).to(tl.float16), seen)


@triton.jit
def kept(planes, at, pixel, seen, area):
    """What `keep` has put aside."""
    planes += at
    red = tl.load(planes + pixel, seen, 0.0).to(tl.float32) + 0.5
    green = tl.load(planes + (pixel + area), seen, 0.0).to(tl.float32) + 0.5
    blue = tl.load(planes + (pixel + 2 * area), seen, 0.0).to(tl.float32) + 0.5
    return red, green, blue
