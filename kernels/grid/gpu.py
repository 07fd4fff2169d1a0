"""GPU backend of grids: patches are written straight from the images. Runs are bit-identical."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import triton

from patchmill.kernels.common.dispatch import device_guard
from patchmill.kernels.common.upload import upload
from patchmill.kernels.grid import gpu_kernels as kernels
from patchmill.kernels.grid.windows import windows_along

BLOCK = 512  # pixels of patches or of an image per program: four per thread
NUM_WARPS = 4

PerChannel = Sequence[float] | None


def unfold(
    images: torch.Tensor,
    size: int,
    stride: int,
    mean: PerChannel,
    std: PerChannel,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Patches of a batch; same contract as `cpu.unfold`."""
    b, c, h, w = images.shape
    rows, columns = windows_along(h, size, stride), windows_along(w, size, stride)
    geometry = rows * columns, columns, *images.stride(), stride
    one = 255.0 if images.dtype == torch.uint8 else 1.0
    scale = scale_and_shift(c, mean, std, one, images.device)
    out = images.new_empty((b * rows * columns, c, size, size), dtype=dtype)
    _unfold(out, images, images, images, geometry, scale, False)
    return out


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
    """Patches of uint8 images [H, W, C]; same contract as `cpu.unfold_ragged`.

    Images are passed by address: they must live until the kernel has run, which holds for memory
    freed on its stream.
    """
    c, device = images[0].shape[2], images[0].device
    entries = torch.tensor([[image.data_ptr(), *image.stride()] for image in images])
    table = upload(entries, device)
    out = torch.empty((len(index), c, size, size), dtype=dtype, device=device)
    unused_geometry = (1, 1, 0, 0, 0, 0, 0)
    scale = scale_and_shift(c, mean, std, 255.0, device)
    _unfold(out, table, index, positions, unused_geometry, scale, True)
    return out


def _unfold(
    out: torch.Tensor,
    images: torch.Tensor,
    index: torch.Tensor,
    positions: torch.Tensor,
    geometry: tuple[int, ...],
    scale: torch.Tensor,
    ragged: bool,
) -> None:
    patches, channels, size, _ = out.shape
    pixels = min(triton.next_power_of_2(size * size), BLOCK)
    patches_each = BLOCK // pixels
    programs = triton.cdiv(patches, patches_each) * triton.cdiv(size * size, pixels)
    with device_guard(out):
        kernels.unfold[(programs,)](
            images, index, positions, scale, out, patches, *geometry,
            SIZE=size, CHANNELS=channels, BLOCK_PATCHES=patches_each, BLOCK_PIXELS=pixels,
            RAGGED=ragged, num_warps=NUM_WARPS,
        )  # fmt: skip


def fold(
    grad_patches: torch.Tensor,
    shape: Sequence[int],
    size: int,
    stride: int,
    std: PerChannel,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Gradient w.r.t. the images; same contract as `cpu.fold`."""
    b, c, h, w = shape
    out = grad_patches.new_empty((b, c, h, w), dtype=dtype)
    tiles = triton.cdiv(h * w, BLOCK)
    with device_guard(grad_patches):
        kernels.fold[(b * tiles,)](
            grad_patches.contiguous(),
            scale_and_shift(c, [0.0] * c, std, 1.0, grad_patches.device), out,
            h, w, windows_along(h, size, stride), windows_along(w, size, stride), tiles, stride,
            SIZE=size, CHANNELS=c, BLOCK_PIXELS=BLOCK, num_warps=NUM_WARPS,
        )  # fmt: skip
    return out


def scale_and_shift(
    channels: int, mean: PerChannel, std: PerChannel, one: float, device: torch.device
) -> torch.Tensor:
    """[2, C] float32: scale and shift of each channel, where the stored value `one` means 1."""
    means, stds = mean or [0.0] * channels, std or [1.0] * channels
    return _uploaded(tuple(means), tuple(stds), one, device)


@functools.lru_cache(64)
def _uploaded(
    mean: tuple[float, ...], std: tuple[float, ...], one: float, device: torch.device
) -> torch.Tensor:
    """Cached: a run has one mean, and an upload often takes longer than a grid."""
    factors, terms = [1 / (one * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    return torch.tensor([factors, terms], device=device)
