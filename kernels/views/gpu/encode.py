"""End of a pass on the GPU: write a finished view, or its planes for the next pass.

Finished views are solarised, normalised, converted and stored in the batch's layout. Planes lie in
a workspace of one chunk of images, 6 bytes per pixel, as float16 centred on zero, where its
resolution is finest.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views import decisions
from patchmill.kernels.views.gpu import fields

SOLARISE_FROM = tl.constexpr(decisions.SOLARISE_FROM)


@triton.jit
def encode_view(
    red, green, blue,  # [rows, columns] float32
    row,  # [FIELDS] int32
    scales,  # [2, 3] float32: scale, shift
    out,  # [batch elements], dtype of the batch
    offset, pixel, mask, area,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Write part of a view to the batch; `pixel` is each value's index in its plane."""
    if tl.load(row + fields.SOLARISE) != 0:
        red, green, blue = _solarise(red), _solarise(green), _solarise(blue)
    red, green = _convert(red, scales, 0, out), _convert(green, scales, 1, out)
    blue = _convert(blue, scales, 2, out)
    out += offset
    if CHANNELS_LAST:
        # Interleave in registers, so that neighbouring threads write neighbouring elements.
        four = tl.join(tl.join(red, blue), tl.join(green, green))
        four = tl.reshape(four, [red.shape[0], red.shape[1], 4])
        channel = tl.arange(0, 4)[None, None, :]
        tl.store(out + (pixel[:, :, None] * 3 + channel), four, mask[:, :, None] & (channel < 3))
    else:
        tl.store(out + pixel, red, mask)
        tl.store(out + (pixel + area), green, mask)
        tl.store(out + (pixel + 2 * area), blue, mask)


@triton.jit
def _solarise(value):
    return tl.where(value >= SOLARISE_FROM, 1 - value, value)


@triton.jit
def _convert(
    value,
    scales,  # [2, 3] float32
    channel: tl.constexpr,
    out,  # for its dtype
):  # fmt: skip
    value = value * tl.load(scales + channel) + tl.load(scales + 3 + channel)
    if out.dtype.element_ty == tl.uint8:
        value += 0.5
    return value.to(out.dtype.element_ty)


@triton.jit
def store_planes(
    red, green, blue,  # [rows, columns] float32
    planes,  # [elements of a chunk] float16
    offset, pixel, mask, area,
):  # fmt: skip
    """Store part of a view for the next pass."""
    planes += offset
    tl.store(planes + pixel, (red - 0.5).to(tl.float16), mask)
    tl.store(planes + (pixel + area), (green - 0.5).to(tl.float16), mask)
    tl.store(planes + (pixel + 2 * area), (blue - 0.5).to(tl.float16), mask)


@triton.jit
def load_planes(
    planes,  # [elements of a chunk] float16
    offset, pixel, mask, area,
):  # fmt: skip
    """Load planes written by `store_planes`, as float32."""
    planes += offset
    red = tl.load(planes + pixel, mask, 0.0).to(tl.float32) + 0.5
    green = tl.load(planes + (pixel + area), mask, 0.0).to(tl.float32) + 0.5
    blue = tl.load(planes + (pixel + 2 * area), mask, 0.0).to(tl.float32) + 0.5
    return red, green, blue
