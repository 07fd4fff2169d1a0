"""Custom operators of the bag loss and the coding rate: autograd, torch.compile and autocast."""

from __future__ import annotations

from typing import Any

import torch

from patchmill.kernels.bags import gram
from patchmill.kernels.common.dispatch import backend

RECOMPUTE_VIEWS = 8  # up to this many views, a GPU recomputes a bag's mean instead of saving it


# ------------------------------------------------------------------------------------ bag loss


@torch.library.custom_op("patchmill::bag_loss", mutates_args=())
def bag_loss(z: torch.Tensor, save: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the vectors to save for the backward pass: [B, 2, d] or, if none, [0, 2, d].

    Rows of z, [V, B, d], must be contiguous.
    """
    saved = _empty_saved(z, save)
    return backend(__package__, z).bag_loss(z, saved), saved


@bag_loss.register_fake
def _(z: torch.Tensor, save: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty((), dtype=torch.float32, device=z.device), _empty_saved(z, save)


def _empty_saved(z: torch.Tensor, save: bool) -> torch.Tensor:
    views, bags, d = z.shape
    n_saved = bags if save and z.is_cuda and views > RECOMPUTE_VIEWS else 0
    return torch.empty(n_saved, 2, d, dtype=torch.float32, device=z.device)


@torch.library.custom_op("patchmill::bag_loss_backward", mutates_args=())
def bag_loss_backward(
    grad_loss: torch.Tensor, z: torch.Tensor, saved: torch.Tensor
) -> torch.Tensor:
    """Gradient w.r.t. z."""
    grad = backend(__package__, z).bag_loss_backward(grad_loss, z, saved)
    return grad  # type: ignore[no-any-return]


@bag_loss_backward.register_fake
def _(grad_loss: torch.Tensor, z: torch.Tensor, saved: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(z)


def _setup_bag_loss(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward_bag_loss(ctx: Any, grad_loss: torch.Tensor | None, _: Any) -> tuple[Any, None]:
    return None if grad_loss is None else bag_loss_backward(grad_loss, *ctx.saved_tensors), None


bag_loss.register_autograd(_backward_bag_loss, setup_context=_setup_bag_loss)


# --------------------------------------------------------------------------------- coding rate


@torch.library.custom_op("patchmill::coding_rate", mutates_args=())
def coding_rate(z: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The rates [V] of z, [V, B, d], and Cholesky factors [V, k, k] with k = min(B, d)."""
    return gram.coding_rate(z, eps)


@coding_rate.register_fake
def _(z: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    views, images, d = z.shape
    side = torch.sym_min(images, d)
    rates = z.new_empty(views, dtype=torch.float32)
    return rates, z.new_empty((views, side, side), dtype=torch.float32)


@torch.library.custom_op("patchmill::coding_rate_backward", mutates_args=())
def coding_rate_backward(
    grad_rates: torch.Tensor, z: torch.Tensor, factors: torch.Tensor, eps: float
) -> torch.Tensor:
    """Gradient w.r.t. z, from the gradients [V] w.r.t. the rates."""
    return gram.coding_rate_backward(grad_rates, z, factors, eps)


@coding_rate_backward.register_fake
def _(grad_rates: torch.Tensor, z: torch.Tensor, factors: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.empty_like(z)


def _setup_coding_rate(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    z, ctx.eps = inputs
    ctx.save_for_backward(z, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward_coding_rate(ctx: Any, grad_rates: torch.Tensor | None, _: Any) -> tuple[Any, None]:
    if grad_rates is None:
        return None, None
    return coding_rate_backward(grad_rates, *ctx.saved_tensors, ctx.eps), None


coding_rate.register_autograd(_backward_coding_rate, setup_context=_setup_coding_rate)
