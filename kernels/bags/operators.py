"""The operators behind the faces: how autograd, torch.compile and autocast see them."""

from __future__ import annotations

from typing import Any

import torch

from patchmill.kernels.bags import cpu, rate

FEW = 8  # views of a bag whose mean a GPU makes anew for the gradient rather than keep it


# ------------------------------------------------------------------------------------ bag loss


@torch.library.custom_op("patchmill::bag_loss", mutates_args=())
def bag_loss(z: torch.Tensor, keep: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and, if there is something to keep for the gradient, [B, 2, d]; else [0, 2, d].

    Numbers of a row of z, [V, B, d], must be contiguous.
    """
    kept = _room(z, keep)
    if not z.is_cuda:
        return cpu.forward(z), kept
    from patchmill.kernels.bags import gpu

    return gpu.forward(z, kept), kept


@bag_loss.register_fake
def _(z: torch.Tensor, keep: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty((), dtype=torch.float32, device=z.device), _room(z, keep)


def _room(z: torch.Tensor, keep: bool) -> torch.Tensor:
    views, bags, d = z.shape
    kept = bags if keep and z.is_cuda and views > FEW else 0
    return torch.empty(kept, 2, d, dtype=torch.float32, device=z.device)


@torch.library.custom_op("patchmill::bag_loss_backward", mutates_args=())
def bag_loss_backward(gradient: torch.Tensor, z: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The gradient by z."""
    if not z.is_cuda:
        return cpu.backward(gradient, z)
    from patchmill.kernels.bags import gpu

    return gpu.backward(gradient, z, kept)


@bag_loss_backward.register_fake
def _(gradient: torch.Tensor, z: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(z)


def _save_bags(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _pull_bags(ctx: Any, gradient: torch.Tensor | None, _: Any) -> tuple[Any, None]:
    return None if gradient is None else bag_loss_backward(gradient, *ctx.saved_tensors), None


bag_loss.register_autograd(_pull_bags, setup_context=_save_bags)


# --------------------------------------------------------------------------------- coding rate


@torch.library.custom_op("patchmill::coding_rate", mutates_args=())
def coding_rate(z: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The rates [V] of z, [V, B, d], and Cholesky factors [V, k, k] with k = min(B, d)."""
    return rate.forward(z, eps)


@coding_rate.register_fake
def _(z: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    views, images, d = z.shape
    least = torch.sym_min(images, d)
    rates = z.new_empty(views, dtype=torch.float32)
    return rates, z.new_empty((views, least, least), dtype=torch.float32)


@torch.library.custom_op("patchmill::coding_rate_backward", mutates_args=())
def coding_rate_backward(
    gradient: torch.Tensor, z: torch.Tensor, factors: torch.Tensor, eps: float
) -> torch.Tensor:
    """The gradient by z, from one by each rate, [V]."""
    return rate.backward(gradient, z, factors, eps)


@coding_rate_backward.register_fake
def _(gradient: torch.Tensor, z: torch.Tensor, factors: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.empty_like(z)


def _save_rates(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    z, ctx.eps = inputs
    ctx.save_for_backward(z, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _pull_rates(ctx: Any, gradient: torch.Tensor | None, _: Any) -> tuple[Any, None]:
    if gradient is None:
        return None, None
    return coding_rate_backward(gradient, *ctx.saved_tensors, ctx.eps), None


coding_rate.register_autograd(_pull_rates, setup_context=_save_rates)
