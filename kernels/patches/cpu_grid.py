"""Grids on the CPU: a plane of an image is converted in the cache, and its windows are copied.

A byte has 256 values: what each becomes is looked up. Numbers are converted once, into the type of
the patches, however many windows show them, and come out as in the reference, to the bit. Memory
beside the patches: one plane of one image for each thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from patchmill.kernels.jit import announced, exact
from patchmill.kernels.parallel import spread
from patchmill.kernels.patches.cpu_memory import borrowed, flat, fresh
from patchmill.kernels.patches.halves import number, numbers, put
from patchmill.kernels.patches.windows import along, corners

LEAST = 1 << 18  # numbers that are worth a thread: 0.2 ms, and to wake one takes half of that

Scale = Sequence[float] | None


def cut_bytes(
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
    out = fresh((int(firsts[-1]), channels, size, size), dtype)
    made, table = numbers(out), numbers(levels(channels, mean, std, dtype))
    sources = [
        (flat(it).numpy(), tuple(it.shape), it.stride(), at.numpy())
        for it, at in zip(stacks, places, strict=True)
    ]

    def work(start: int, stop: int) -> None:
        begin = int(np.searchsorted(planes, start, "right")) - 1
        for i in range(begin, int(np.searchsorted(planes, stop))):
            low, high = max(start - planes[i], 0), min(stop, planes[i + 1]) - planes[i]
            look_up(*sources[i], table, low, high, made[firsts[i] : firsts[i + 1]])

    with announced():
        spread(work, int(planes[-1]), _least(out, int(planes[-1])))
    return out


def cut_floats(
    images: torch.Tensor, size: int, stride: int, mean: Scale, std: Scale, dtype: torch.dtype
) -> torch.Tensor:
    """Windows of [B, C, H, W] of any strides."""
    b, c, h, w = images.shape
    places = corners(h, w, size, stride)
    out = fresh((b * len(places), c, size, size), dtype)
    if mean is None and images.dtype == dtype:  # nothing but a copy, which torch is good at
        windows = images.unfold(2, size, stride).unfold(3, size, stride).permute(0, 2, 3, 1, 4, 5)
        out.view(windows.shape).copy_(windows)
        return out
    source = numbers(flat(images)), tuple(images.shape), images.stride(), places.numpy()
    scale, made = (_by_channel(mean, c, 0.0), _by_channel(std, c, 1.0)), numbers(out)

    def work(start: int, stop: int) -> None:
        rescale(*source, *scale, start, stop, made)

    with announced():
        spread(work, b * c, _least(out, b * c))
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
    out = fresh(shape, dtype)
    down, across = along(h, size, stride), along(w, size, stride)
    given = numbers(gradient.contiguous()).reshape(b, down, across, c, size, size)
    scale, made = _by_channel(std, c, 1.0), numbers(out)

    def work(start: int, stop: int) -> None:
        add_up(given, stride, scale, start, stop, made)

    with announced():
        spread(work, b * c, _least(gradient, b * c))
    return out


def levels(channels: int, mean: Scale, std: Scale, dtype: torch.dtype) -> torch.Tensor:
    """[C, 256]: what each byte becomes."""
    value = torch.arange(256, dtype=torch.float32).div(255).expand(channels, 256)
    if mean is not None and std is not None:
        value = (value - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]
    return value.to(dtype).contiguous()


def _by_channel(values: Scale, channels: int, default: float) -> np.ndarray:
    return np.array([default] * channels if values is None else values, np.float32)


def _least(patches: torch.Tensor, planes: int) -> int:
    return max(1, LEAST * planes // patches.numel())


# ------------------------------------------------------------------------------ compiled


@exact
def look_up(source, shape, strides, places, table, start, stop, out):  # type: ignore[no-untyped-def]
    """The windows of planes start to stop of all channels of all images."""
    source, table, out = borrowed(source), borrowed(table), borrowed(out)
    plane, channels = np.empty(shape[2:], out.dtype), shape[1]
    for number_of in range(start, stop):
        image, channel = number_of // channels, number_of % channels
        first = image * strides[0] + channel * strides[1]
        values = table[channel]
        for y in range(shape[2]):
            line, at = plane[y], first + y * strides[2]
            for x in range(shape[3]):
                line[x] = values[source[at + x * strides[3]]]
        copy_windows(plane, places, image * len(places), channel, out)


@exact
def rescale(source, shape, strides, places, mean, std, start, stop, out):  # type: ignore[no-untyped-def]
    source, out = borrowed(source), borrowed(out)
    plane, channels = np.empty(shape[2:], out.dtype), shape[1]
    for number_of in range(start, stop):
        image, channel = number_of // channels, number_of % channels
        first = image * strides[0] + channel * strides[1]
        less, over = mean[channel], std[channel]
        for y in range(shape[2]):
            line, at = plane[y], first + y * strides[2]
            if strides[3] == 1:
                row = source[at : at + len(line)]
                for x in range(len(line)):
                    put(line, x, (number(row[x]) - less) / over)
            else:
                for x in range(len(line)):
                    put(line, x, (number(source[at + x * strides[3]]) - less) / over)
        copy_windows(plane, places, image * len(places), channel, out)


@exact
def copy_windows(plane, places, first, channel, out):  # type: ignore[no-untyped-def]
    """Between flat arrays: a slice of one takes a fraction of the time of a row of four axes."""
    size, width, channels = out.shape[3], plane.shape[1], out.shape[1]
    source, target = plane.reshape(-1), out.reshape(-1)
    for k in range(len(places)):
        at = places[k, 0] * width + places[k, 1]
        to = ((first + k) * channels + channel) * size * size
        for _ in range(size):
            row, made = source[at : at + size], target[to : to + size]
            for j in range(size):
                made[j] = row[j]
            at, to = at + width, to + size


@exact
def add_up(grid, stride, std, start, stop, out):  # type: ignore[no-untyped-def]
    """The same planes of the gradient by images; windows in their order."""
    down, across, channels, size = grid.shape[1:5]
    grid, out = borrowed(grid), borrowed(out)
    total = np.empty(out.shape[2:], np.float32)
    for number_of in range(start, stop):
        image, channel = number_of // channels, number_of % channels
        total[:] = np.float32(0)
        for v in range(down):
            for u in range(across):
                for i in range(size):
                    row = grid[image, v, u, channel, i]
                    place = total[v * stride + i, u * stride : u * stride + size]
                    for j in range(size):
                        place[j] += number(row[j])
        over = std[channel]
        for y in range(len(total)):
            line, made = total[y], out[image, channel, y]
            for x in range(len(line)):
                put(made, x, line[x] / over)
