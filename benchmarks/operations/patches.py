"""Grids of patches and means of their embeddings, against unfold and index_add."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.functional import normalize

from patchmill.benchmarks.operations.case import (
    COMPILED,
    EAGER,
    OURS,
    Case,
    Floor,
    noise,
    trio,
)
from patchmill.kernels.aggregate import aggregate
from patchmill.kernels.grid import grid

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cases(device: torch.device, dtype: torch.dtype) -> list[Case]:
    big = device.type == "cuda"
    return [
        _grid(256 if big else 16, 224, 32, 16, device, dtype),
        _grid_of_floats(256 if big else 16, 224, 32, 16, device, dtype),
        _aggregate("each", 1024 if big else 64, 256, 512, device, dtype),
        _aggregate("none", 1024 if big else 64, 256, 512, device, dtype),
        _aggregate("none", 1024 if big else 64, 256, 512, device, dtype, backward=False),
    ]


def normalise_and_unfold(
    images: torch.Tensor, size: int, stride: int, dtype: torch.dtype
) -> torch.Tensor:
    mean, std = (
        torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, STD)
    )
    return unfold(((images.float() / 255 - mean) / std).to(dtype), size, stride)


def unfold(images: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    windows = images.unfold(2, size, stride).unfold(3, size, stride)
    return windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1], size, size)


def mean_of(rows: torch.Tensor, index: torch.Tensor, images: int, normalise: str) -> torch.Tensor:
    rows = normalize(rows.float(), dim=1) if normalise == "each" else rows.float()
    sums = rows.new_zeros(images, rows.shape[1]).index_add(0, index, rows)
    return sums / torch.bincount(index, minlength=images)[:, None]


def _grid(
    count: int, side: int, size: int, stride: int, device: torch.device, dtype: torch.dtype
) -> Case:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, side, side)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(device)
    compiled = torch.compile(normalise_and_unfold, dynamic=False)
    runs = {
        OURS: lambda: grid(images, size, stride, mean=MEAN, std=STD, dtype=dtype).patches,
        EAGER: lambda: normalise_and_unfold(images, size, stride, dtype),
        COMPILED: lambda: compiled(images, size, stride, dtype),
    }
    along = (side - size) // stride + 1
    written = count * along**2 * 3 * size**2 * torch.empty(0, dtype=dtype).element_size()
    shape_name = f"{count} images of {side}, {size} every {stride}"
    return Case("grid", shape_name, runs, Floor(images.numel() + written), backward=False)


def _grid_of_floats(
    count: int, side: int, size: int, stride: int, device: torch.device, dtype: torch.dtype
) -> Case:
    """Images already normalised; forward and backward."""
    images = noise(count, 3, side, side, device=device, dtype=dtype).requires_grad_()

    def ours(images: torch.Tensor) -> torch.Tensor:
        return grid(images, size, stride, dtype=dtype).patches

    def eager(images: torch.Tensor) -> torch.Tensor:
        return unfold(images, size, stride)

    written = count * ((side - size) // stride + 1) ** 2 * 3 * size**2
    floor = Floor(2 * (images.numel() + written) * images.element_size())
    shape_name = f"{count} float images of {side}, {size} every {stride}"
    return Case("grid", shape_name, trio(ours, eager, images, wanted=[images]), floor)


def _aggregate(
    normalise: Literal["none", "each"],
    images: int,
    each: int,
    d: int,
    device: torch.device,
    dtype: torch.dtype,
    backward: bool = True,
) -> Case:
    rows = noise(images * each, d, device=device, dtype=dtype).requires_grad_(backward)
    counts = torch.full((images,), each, device=device)
    index = torch.arange(images, device=device).repeat_interleave(each)

    def ours(rows: torch.Tensor) -> torch.Tensor:
        return aggregate(rows, counts, normalise=normalise)

    def eager(rows: torch.Tensor) -> torch.Tensor:
        return mean_of(rows, index, images, normalise)

    shape_name = f"{images} images of {each} patches, d {d}, {normalise!r}"
    size = rows.numel() * rows.element_size()
    if not backward:
        compiled = torch.compile(eager, dynamic=False)
        forward = {
            OURS: lambda: ours(rows),
            EAGER: lambda: eager(rows),
            COMPILED: lambda: compiled(rows),
        }
        return Case("aggregate", f"{shape_name}, forward", forward, Floor(size), backward=False)
    passes = 3 if normalise == "each" else 2  # reads, and gradients written
    runs = trio(ours, eager, rows, wanted=[rows])
    return Case("aggregate", shape_name, runs, Floor(passes * size))
