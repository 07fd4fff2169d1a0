"""Grids on the CPU: a plane of an image is converted in the cache, and its windows are copied.

Numbers are converted once, into the type of the patches, however many windows show them, and come
out as in the reference, to the bit. Memory beside the patches: one plane of one image for each
thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from patchmill.kernels.common.floats16 import as_numpy, store_float, to_float
from patchmill.kernels.common.jit import announce_compilation, jit_ieee
from patchmill.kernels.common.memory import (
    allocate,
    borrow,
    can_stream,
    flat_storage,
    store_fence,
    stream_row,
)
from patchmill.kernels.common.parallel import parallel_ranges
from patchmill.kernels.patches.windows import along

LEAST = 1 << 18  # numbers that are worth a thread: 0.1 ms, and to wake one takes as long

Scale = Sequence[float] | None


def cut(
    stacks: Sequence[torch.Tensor],
    places: Sequence[torch.Tensor],
    size: int,
    mean: Scale,
    std: Scale,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Windows of stacks [N, C, H, W] of any strides, at all corners [K, 2] of their stack."""
    channels = stacks[0].shape[1]
    firsts = np.cumsum([0, *(len(it) * len(at) for it, at in zip(stacks, places, strict=True))])
    planes = np.cumsum([0, *(len(it) * channels for it in stacks)])
    out = allocate((int(firsts[-1]), channels, size, size), dtype)
    made, scale = as_numpy(out), (_by_channel(mean, channels, 0.0), _by_channel(std, channels, 1.0))
    sources = [
        (as_numpy(flat_storage(it)), tuple(it.shape), it.stride(), at.numpy())
        for it, at in zip(stacks, places, strict=True)
    ]
    stream = can_stream(out, size)

    def work(start: int, stop: int) -> None:
        begin = int(np.searchsorted(planes, start, "right")) - 1
        for i in range(begin, int(np.searchsorted(planes, stop))):
            low, high = max(start - planes[i], 0), min(stop, planes[i + 1]) - planes[i]
            its = made[firsts[i] : firsts[i + 1]]
            cut_planes(*sources[i], *scale, stream, low, high, its)

    with announce_compilation():
        parallel_ranges(work, int(planes[-1]), _least(out, int(planes[-1])))
    return out


def fold(
    gradient: torch.Tensor,
    shape: Sequence[int],
    size: int,
    stride: int,
    std: Scale,
    dtype: torch.dtype,
) -> torch.Tensor:
    """The gradient by images [B, C, H, W]: each pixel's sum over the windows that show it."""
    b, c, h, w = shape
    out = allocate(shape, dtype)
    down, across = along(h, size, stride), along(w, size, stride)
    given = as_numpy(gradient.contiguous()).reshape(b, down, across, c, size, size)
    scale, made = _by_channel(std, c, 1.0), as_numpy(out)

    def work(start: int, stop: int) -> None:
        add_up(given, stride, scale, start, stop, made)

    with announce_compilation():
        parallel_ranges(work, b * c, _least(gradient, b * c))
    return out


def _by_channel(values: Scale, channels: int, default: float) -> np.ndarray:
    return np.array([default] * channels if values is None else values, np.float32)


def _least(patches: torch.Tensor, planes: int) -> int:
    return max(1, LEAST * planes // patches.numel())


# ------------------------------------------------------------------------------ compiled


@jit_ieee
def cut_planes(source, shape, strides, places, mean, std, stream, start, stop, out):  # type: ignore[no-untyped-def]
    """The windows of planes start to stop of all channels of all images."""
    source, made = borrow(source), borrow(out).reshape(-1)
    channels, width, size = shape[1], shape[3], out.shape[3]
    plane, packed = np.empty(shape[2] * width, out.dtype), np.empty(width, source.dtype)
    for number_of in range(start, stop):
        lines = borrow(plane)  # here, so that it is alive until the last plane is done
        image, channel = number_of // channels, number_of % channels
        first = image * strides[0] + channel * strides[1]
        to, step = (image * len(places) * channels + channel) * size * size, channels * size * size
        for y in range(shape[2]):
            at = first + y * strides[2]
            line = lines[y * width : (y + 1) * width]
            convert(source, at, strides[3], mean[channel], std[channel], borrow(packed), line)
        copy_windows(lines, width, places, stream, to, step, size, made)
    store_fence()


@jit_ieee
def convert(source, at, stride, less, over, packed, line):  # type: ignore[no-untyped-def]
    """A row; numbers that lie apart are brought together first, so that the rest is vectorised."""
    row = packed
    if stride == 1:
        row = source[at : at + len(line)]
    else:
        for x in range(len(line)):
            packed[x] = source[at + x * stride]
    for x in range(len(line)):
        store_float(line, x, (to_float(row[x]) - less) / over)


@jit_ieee
def copy_windows(plane, width, places, stream, to, step, size, out):  # type: ignore[no-untyped-def]
    """Between flat arrays, to windows that are `step` apart, from `to` on."""
    for k in range(len(places)):
        at, here = places[k, 0] * width + places[k, 1], to + k * step
        for _ in range(size):
            row, made = plane[at : at + size], out[here : here + size]
            if stream:
                stream_row(row, made)
            else:
                for j in range(size):
                    made[j] = row[j]
            at, here = at + width, here + size


@jit_ieee
def add_up(grid, stride, std, start, stop, out):  # type: ignore[no-untyped-def]
    """The same planes of the gradient by images; windows in their order."""
    down, across, channels, size = grid.shape[1:5]
    grid, out = borrow(grid), borrow(out)
    whole = np.empty(out.shape[2:], np.float32)
    for number_of in range(start, stop):
        total = borrow(whole)
        image, channel = number_of // channels, number_of % channels
        whole[:] = np.float32(0)
        for v in range(down):
            for u in range(across):
                for i in range(size):
                    row = grid[image, v, u, channel, i]
                    place = total[v * stride + i, u * stride : u * stride + size]
                    for j in range(size):
                        place[j] += to_float(row[j])
        over = std[channel]
        for y in range(len(total)):
            line, made = total[y], out[image, channel, y]
            for x in range(len(line)):
                store_float(made, x, line[x] / over)
