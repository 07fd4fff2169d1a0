"""The operators behind the faces: how autograd, torch.compile and autocast see them."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from patchmill.kernels.patches.reference import EPS
from patchmill.kernels.patches.windows import along, corners, total

# ------------------------------------------------------------------------------------ grids


@torch.library.custom_op("patchmill::patch_grid", mutates_args=())
def grid(
    images: torch.Tensor,
    size: int,
    stride: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """[B, C, H, W] to [P, C, size, size]."""
    if images.is_cuda:
        from patchmill.kernels.patches import gpu_grid

        return gpu_grid.cut(images, size, stride, mean, std, dtype)
    from patchmill.kernels.patches import cpu_grid

    places = corners(images.shape[2], images.shape[3], size, stride)
    return cpu_grid.cut([images], [places], size, mean, std, dtype)


@grid.register_fake
def _(
    images: torch.Tensor, size: int, stride: int, mean: Any, std: Any, dtype: torch.dtype
) -> torch.Tensor:
    b, c, h, w = images.shape
    count = b * along(h, size, stride) * along(w, size, stride)
    return images.new_empty((count, c, size, size), dtype=dtype)


@torch.library.custom_op("patchmill::patch_fold", mutates_args=())
def fold(
    gradient: torch.Tensor,
    shape: Sequence[int],
    size: int,
    stride: int,
    std: Sequence[float] | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """The gradient by images of `shape`."""
    if gradient.is_cuda:
        from patchmill.kernels.patches import gpu_grid

        return gpu_grid.fold(gradient, shape, size, stride, std, dtype)
    from patchmill.kernels.patches import cpu_grid

    return cpu_grid.fold(gradient, shape, size, stride, std, dtype)


@fold.register_fake
def _(
    gradient: torch.Tensor, shape: Any, size: int, stride: int, std: Any, dtype: torch.dtype
) -> torch.Tensor:
    return gradient.new_empty(shape, dtype=dtype)


def _save_grid(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    images, ctx.size, ctx.stride, _, ctx.std, _ = inputs
    ctx.shape, ctx.dtype = images.shape, images.dtype


def _fold(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    made = fold(gradient, ctx.shape, ctx.size, ctx.stride, ctx.std, ctx.dtype)
    return made, None, None, None, None, None


grid.register_autograd(_fold, setup_context=_save_grid)


@torch.library.custom_op("patchmill::patch_grid_ragged", mutates_args=())
def grid_ragged(
    images: Sequence[torch.Tensor],
    index: torch.Tensor,
    positions: torch.Tensor,
    size: int,
    stride: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Bytes [H, W, C] to [P, C, size, size]; the patches of one image follow one another."""
    if images[0].is_cuda:
        from patchmill.kernels.patches import gpu_grid

        return gpu_grid.cut_ragged(images, index, positions, size, mean, std, dtype)
    from patchmill.kernels.patches import cpu_grid

    counts = [total([(image.shape[0], image.shape[1])], size, stride) for image in images]
    stacks = [image.permute(2, 0, 1)[None] for image in images]
    return cpu_grid.cut(stacks, positions.split(counts), size, mean, std, dtype)


@grid_ragged.register_fake
def _(
    images: Sequence[torch.Tensor], index: torch.Tensor, positions: torch.Tensor, size: int,
    stride: int, mean: Any, std: Any, dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    return images[0].new_empty((len(index), images[0].shape[2], size, size), dtype=dtype)


# ------------------------------------------------------------------------------------ means


@torch.library.custom_op("patchmill::patch_mean", mutates_args=())
def mean(
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    each: bool,
    unit: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means [B, d], sums of weights [B], and the means' lengths [B] before they became `unit`."""
    made = _on(embeddings).forward(embeddings.contiguous(), weights, offsets, order, each, unit)
    return made  # type: ignore[no-any-return]


@mean.register_fake
def _(
    embeddings: torch.Tensor, weights: Any, offsets: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    groups, kind = len(offsets) - 1, torch.float32
    means = embeddings.new_empty((groups, embeddings.shape[1]), dtype=kind)
    return means, means.new_empty(groups), means.new_empty(groups)


@torch.library.custom_op("patchmill::patch_mean_pulled", mutates_args=())
def pulled(
    slope: torch.Tensor,
    rest: torch.Tensor,
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    rows: int,
    each: bool,
    by_rows: bool,
    by_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients by `rows` embeddings and weights, of the sums' `slope`; see `cpu_mean.pulled`.

    The embeddings themselves are read for `each` or `by_weights` only, and may be none at all else.
    """
    made = _on(slope).pulled(
        slope.contiguous(), rest.contiguous(), embeddings.contiguous(), weights, offsets, order,
        rows, each, by_rows, by_weights,
    )  # fmt: skip
    return made  # type: ignore[no-any-return]


@pulled.register_fake
def _(
    slope: torch.Tensor, rest: torch.Tensor, embeddings: torch.Tensor, weights: Any, offsets: Any,
    order: Any, rows: int, each: bool, by_rows: bool, by_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    made = embeddings.new_empty((rows if by_rows else 0, slope.shape[1]))
    return made, rest.new_empty(rows if by_weights else 0)


def _save_mean(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    embeddings, weights, offsets, order, ctx.each, ctx.unit = inputs
    means, totals, lengths = output
    ctx.rows = len(embeddings)
    if not (ctx.each or ctx.needs_input_grad[1]):
        embeddings = embeddings[:0]  # of which only the type is needed
    ctx.save_for_backward(embeddings, weights, offsets, order, means, totals, lengths)
    ctx.mark_non_differentiable(totals, lengths)
    ctx.set_materialize_grads(False)


def _pull(ctx: Any, gradient: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    by_rows, by_weights = ctx.needs_input_grad[:2]
    if gradient is None:
        return None, None, None, None, None, None
    embeddings, weights, offsets, order, means, totals, lengths = ctx.saved_tensors
    slope, factors = gradient.float(), torch.where(totals == 0, 0, 1 / totals)
    if ctx.unit:  # along the sphere only; what has no direction gets nothing
        slope = slope - means * (means * slope).sum(1, keepdim=True)
        factors = torch.where(lengths <= EPS, 0, factors / lengths)
    slope, rest = slope * factors[:, None], torch.zeros_like(totals)
    if by_weights and not ctx.unit:
        rest = (slope * means).sum(1)
    rows, gains = pulled(
        slope, rest, embeddings, weights, offsets, order, ctx.rows, ctx.each, by_rows, by_weights
    )
    return rows if by_rows else None, gains if by_weights else None, None, None, None, None


mean.register_autograd(_pull, setup_context=_save_mean)


def _on(tensor: torch.Tensor) -> ModuleType:
    if tensor.is_cuda:
        from patchmill.kernels.patches import gpu_mean

        return gpu_mean
    from patchmill.kernels.patches import cpu_mean

    return cpu_mean
