"""Custom operators of grids: autograd, torch.compile and autocast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from patchmill.kernels.common.dispatch import backend
from patchmill.kernels.grid.windows import count_windows


@torch.library.custom_op("patchmill::grid_unfold", mutates_args=())
def unfold(
    images: torch.Tensor,
    size: int,
    stride: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """[B, C, H, W] to [P, C, size, size]."""
    patches = backend(__package__, images).unfold(images, size, stride, mean, std, dtype)
    return patches  # type: ignore[no-any-return]


@unfold.register_fake
def _(
    images: torch.Tensor, size: int, stride: int, mean: Any, std: Any, dtype: torch.dtype
) -> torch.Tensor:
    b, c, h, w = images.shape
    return images.new_empty((b * count_windows(h, w, size, stride), c, size, size), dtype=dtype)


@torch.library.custom_op("patchmill::grid_fold", mutates_args=())
def fold(
    grad_patches: torch.Tensor,
    shape: Sequence[int],
    size: int,
    stride: int,
    std: Sequence[float] | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Gradient w.r.t. images of `shape`."""
    grad = backend(__package__, grad_patches).fold(grad_patches, shape, size, stride, std, dtype)
    return grad  # type: ignore[no-any-return]


@fold.register_fake
def _(
    grad_patches: torch.Tensor, shape: Any, size: int, stride: int, std: Any, dtype: torch.dtype
) -> torch.Tensor:
    return grad_patches.new_empty(shape, dtype=dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    images, ctx.size, ctx.stride, _, ctx.std, _ = inputs
    ctx.shape, ctx.dtype = images.shape, images.dtype


def _backward(ctx: Any, grad_patches: torch.Tensor) -> tuple[Any, ...]:
    grad = fold(grad_patches, ctx.shape, ctx.size, ctx.stride, ctx.std, ctx.dtype)
    return grad, None, None, None, None, None


unfold.register_autograd(_backward, setup_context=_setup_context)


@torch.library.custom_op("patchmill::grid_unfold_ragged", mutates_args=())
def unfold_ragged(
    images: Sequence[torch.Tensor],
    index: torch.Tensor,
    positions: torch.Tensor,
    size: int,
    stride: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """uint8 images [H, W, C] to [P, C, size, size]; patches of one image are consecutive."""
    patches = backend(__package__, images[0]).unfold_ragged(
        images, index, positions, size, stride, mean, std, dtype
    )
    return patches  # type: ignore[no-any-return]


@unfold_ragged.register_fake
def _(
    images: Sequence[torch.Tensor],
    index: torch.Tensor,
    positions: torch.Tensor,
    size: int,
    stride: int,
    mean: Any,
    std: Any,
    dtype: torch.dtype,
) -> torch.Tensor:
    return images[0].new_empty((len(index), images[0].shape[2], size, size), dtype=dtype)
