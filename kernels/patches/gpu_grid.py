"""Grids on the GPU: from the images straight into the patches. Two runs are equal to the bit."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
import triton

from patchmill.kernels.patches import gpu_kernels as kernels
from patchmill.kernels.patches.windows import along

PLACES = 512  # of a patch or of an image, for one program: four a thread
NUM_WARPS = 4

Scale = Sequence[float] | None


def cut(
    images: torch.Tensor, size: int, stride: int, mean: Scale, std: Scale, dtype: torch.dtype
) -> torch.Tensor:
    """As `cpu_grid.cut`, of one stack."""
    b, c, h, w = images.shape
    rows, columns = along(h, size, stride), along(w, size, stride)
    geometry = rows * columns, columns, *images.stride(), stride
    top = 255.0 if images.dtype == torch.uint8 else 1.0
    out = images.new_empty((b * rows * columns, c, size, size), dtype=dtype)
    _cut(out, images, images, images, geometry, scales(c, mean, std, top, images.device), False)
    return out


def cut_ragged(
    images: Sequence[torch.Tensor],
    index: torch.Tensor,
    positions: torch.Tensor,
    size: int,
    mean: Scale,
    std: Scale,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Of bytes [H, W, C]. They must live until it is done, as what is freed on its stream does."""
    c, device = images[0].shape[2], images[0].device
    entries = torch.tensor([[it.data_ptr(), *it.stride()] for it in images])
    table = entries.to(device, non_blocking=True)
    out = torch.empty((len(index), c, size, size), dtype=dtype, device=device)
    nowhere = (1, 1, 0, 0, 0, 0, 0)
    _cut(out, table, index, positions, nowhere, scales(c, mean, std, 255.0, device), True)
    return out


def _cut(
    out: torch.Tensor,
    images: torch.Tensor,
    index: torch.Tensor,
    positions: torch.Tensor,
    geometry: tuple[int, ...],
    scale: torch.Tensor,
    ragged: bool,
) -> None:
    patches, channels, size, _ = out.shape
    wide = min(triton.next_power_of_2(size * size), PLACES)
    tall = PLACES // wide
    programs = triton.cdiv(patches, tall) * triton.cdiv(size * size, wide)
    with _on(out):
        kernels.cut[(programs,)](
            images, index, positions, scale, out, patches, *geometry,
            SIZE=size, CHANNELS=channels, TALL=tall, WIDE=wide, RAGGED=ragged, num_warps=NUM_WARPS,
        )  # fmt: skip


def fold(
    gradient: torch.Tensor,
    shape: Sequence[int],
    size: int,
    stride: int,
    std: Scale,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As `cpu_grid.fold`."""
    b, c, h, w = shape
    out = gradient.new_empty((b, c, h, w), dtype=dtype)
    tiles = triton.cdiv(h * w, PLACES)
    with _on(gradient):
        kernels.fold[(b * tiles,)](
            gradient.contiguous(), scales(c, [0.0] * c, std, 1.0, gradient.device), out,
            h, w, along(h, size, stride), along(w, size, stride), tiles, stride,
            SIZE=size, CHANNELS=c, WIDE=PLACES, num_warps=NUM_WARPS,
        )  # fmt: skip
    return out


def scales(
    channels: int, mean: Scale, std: Scale, top: float, device: torch.device
) -> torch.Tensor:
    """[2, C]: factors and then terms, where `top` is 1."""
    means, stds = mean or [0.0] * channels, std or [1.0] * channels
    return _uploaded(tuple(means), tuple(stds), top, device)


@functools.lru_cache(64)
def _uploaded(
    mean: tuple[float, ...], std: tuple[float, ...], top: float, device: torch.device
) -> torch.Tensor:
    """Kept: a run has one mean, and an upload takes longer than many a grid."""
    factors, terms = [1 / (top * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    return torch.tensor([factors, terms], device=device)


def _on(tensor: torch.Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
