"""CPU backend of grids: a plane of an image is converted in the cache, then its windows are copied.

Each value is converted once, to the dtype of the patches, however many windows contain it, and is
bit-identical to the reference. Extra memory: one plane of one image per thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from patchmill.kernels.common.compiling import announce_compilation
from patchmill.kernels.common.floats16 import as_numpy
from patchmill.kernels.common.memory import allocate, can_stream, flat_storage
from patchmill.kernels.common.parallel import parallel_ranges
from patchmill.kernels.grid.cpu_loops import fold_planes, unfold_planes
from patchmill.kernels.grid.windows import count_windows, window_corners, windows_along

ELEMENTS_PER_THREAD = 1 << 18  # at least: 0.1 ms of work, about the time to wake a thread

PerChannel = Sequence[float] | None


def unfold(
    images: torch.Tensor,
    size: int,
    stride: int,
    mean: PerChannel,
    std: PerChannel,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Patches [P, C, size, size] of images [B, C, H, W] with any strides."""
    corners = window_corners(images.shape[2], images.shape[3], size, stride)
    return _unfold_stacks([images], [corners], size, mean, std, dtype)


def unfold_ragged(
    images: Sequence[torch.Tensor],
    index: torch.Tensor,
    positions: torch.Tensor,
    size: int,
    stride: int,
    mean: PerChannel,
    std: PerChannel,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Patches [P, C, size, size] of images [H, W, C], at `positions` image by image."""
    counts = [count_windows(image.shape[0], image.shape[1], size, stride) for image in images]
    stacks = [image.permute(2, 0, 1)[None] for image in images]
    return _unfold_stacks(stacks, positions.split(counts), size, mean, std, dtype)


def _unfold_stacks(
    stacks: Sequence[torch.Tensor],
    corners: Sequence[torch.Tensor],
    size: int,
    mean: PerChannel,
    std: PerChannel,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Windows of stacks [N, C, H, W] with any strides, each at its corners [K, 2]."""
    channels = stacks[0].shape[1]
    pairs = list(zip(stacks, corners, strict=True))
    first_patch = np.cumsum([0, *(len(stack) * len(at) for stack, at in pairs)])
    first_plane = np.cumsum([0, *(len(stack) * channels for stack in stacks)])
    planes = int(first_plane[-1])
    out = allocate((int(first_patch[-1]), channels, size, size), dtype)
    patches = as_numpy(out)
    means, stds = _by_channel(mean, channels, 0.0), _by_channel(std, channels, 1.0)
    sources = [
        (as_numpy(flat_storage(stack)), tuple(stack.shape), stack.stride(), at.numpy())
        for stack, at in pairs
    ]
    stream = can_stream(out, size)

    def work(start: int, stop: int) -> None:
        begin = int(np.searchsorted(first_plane, start, "right")) - 1
        for i in range(begin, int(np.searchsorted(first_plane, stop))):
            first, end = first_plane[i], first_plane[i + 1]
            low, high = max(start - first, 0), min(stop, end) - first
            stack_patches = patches[first_patch[i] : first_patch[i + 1]]
            unfold_planes(*sources[i], means, stds, stream, low, high, stack_patches)

    with announce_compilation():
        parallel_ranges(work, planes, _min_planes(out, planes))
    return out


def fold(
    grad_patches: torch.Tensor,
    shape: Sequence[int],
    size: int,
    stride: int,
    std: PerChannel,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Gradient w.r.t. images [B, C, H, W]: each pixel's sum over the windows that contain it."""
    b, c, h, w = shape
    out = allocate(shape, dtype)
    rows, columns = windows_along(h, size, stride), windows_along(w, size, stride)
    grads = as_numpy(grad_patches.contiguous()).reshape(b, rows, columns, c, size, size)
    stds, images = _by_channel(std, c, 1.0), as_numpy(out)

    def work(start: int, stop: int) -> None:
        fold_planes(grads, stride, stds, start, stop, images)

    with announce_compilation():
        parallel_ranges(work, b * c, _min_planes(grad_patches, b * c))
    return out


def _by_channel(values: PerChannel, channels: int, default: float) -> np.ndarray:
    return np.array([default] * channels if values is None else values, np.float32)


def _min_planes(patches: torch.Tensor, planes: int) -> int:
    """Fewest planes worth a thread of their own."""
    return max(1, ELEMENTS_PER_THREAD * planes // patches.numel())
