"""Compiled loops of grids on the CPU."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.floats16 import store_float, to_float
from patchmill.kernels.common.jit import jit_ieee
from patchmill.kernels.common.memory import borrow, store_fence, stream_row


@jit_ieee
def unfold_planes(source, shape, strides, corners, mean, std, stream, start, stop, out):  # type: ignore[no-untyped-def]
    """Windows of planes start to stop, counted over images and channels.

    source is the flat memory of images [N, C, H, W] with this shape and these strides; corners is
    [K, 2], out [N * K, C, size, size]. With `stream`, rows are written past the cache.
    """
    source, flat_out = borrow(source), borrow(out).reshape(-1)
    channels, width, size = shape[1], shape[3], out.shape[3]
    memory, packed = np.empty(shape[2] * width, out.dtype), np.empty(width, source.dtype)
    for number in range(start, stop):
        plane = borrow(memory)  # in the loop, so that the memory lives until the last plane is done
        image, channel = number // channels, number % channels
        first = image * strides[0] + channel * strides[1]
        for y in range(shape[2]):
            at = first + y * strides[2]
            line = plane[y * width : (y + 1) * width]
            convert_row(source, at, strides[3], mean[channel], std[channel], borrow(packed), line)
        # Windows of one channel are `step` apart in the output.
        step = channels * size * size
        to = (image * len(corners) * channels + channel) * size * size
        copy_windows(plane, width, corners, stream, to, step, size, flat_out)
    store_fence()


@jit_ieee
def convert_row(source, at, stride, mean, std, packed, line):  # type: ignore[no-untyped-def]
    """line = (row - mean) / std in the output's dtype.

    Values of a strided row are packed first, so that the rest vectorises.
    """
    row = packed
    if stride == 1:
        row = source[at : at + len(line)]
    else:
        for x in range(len(line)):
            packed[x] = source[at + x * stride]
    for x in range(len(line)):
        store_float(line, x, (to_float(row[x]) - mean) / std)


@jit_ieee
def copy_windows(plane, width, corners, stream, to, step, size, out):  # type: ignore[no-untyped-def]
    """Copy windows of a flat plane to a flat output, starting at `to` and `step` apart."""
    for k in range(len(corners)):
        at, out_at = corners[k, 0] * width + corners[k, 1], to + k * step
        for _ in range(size):
            row, out_row = plane[at : at + size], out[out_at : out_at + size]
            if stream:
                stream_row(row, out_row)
            else:
                for j in range(size):
                    out_row[j] = row[j]
            at, out_at = at + width, out_at + size


@jit_ieee
def fold_planes(grads, stride, std, start, stop, out):  # type: ignore[no-untyped-def]
    """Planes start to stop of the gradient w.r.t. images; windows are summed in order.

    grads is [N, rows, columns, C, size, size], out [N, C, H, W].
    """
    rows, columns, channels, size = grads.shape[1:5]
    grads, out = borrow(grads), borrow(out)
    memory = np.empty(out.shape[2:], np.float32)
    for number in range(start, stop):
        total = borrow(memory)
        image, channel = number // channels, number % channels
        memory[:] = np.float32(0)
        for v in range(rows):
            for u in range(columns):
                for i in range(size):
                    row = grads[image, v, u, channel, i]
                    target = total[v * stride + i, u * stride : u * stride + size]
                    for j in range(size):
                        target[j] += to_float(row[j])
        divisor = std[channel]
        for y in range(len(total)):
            line, out_line = total[y], out[image, channel, y]
            for x in range(len(line)):
                store_float(out_line, x, line[x] / divisor)
