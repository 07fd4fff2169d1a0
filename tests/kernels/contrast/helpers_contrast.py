"""Rows on the unit sphere, and how far results and gradients are from float64's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import normalize

Loss = Callable[..., torch.Tensor]
SCALE = 3.0  # of the gradient that comes in
# Beside twice the error of plain PyTorch in the same type: of losses, and of the largest gradient.
LOSS_SLACK = 4e-6
SLACK = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def unit(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
    return normalize(made, dim=-1).to(dtype)


def graded(
    loss: Loss, tensors: list[torch.Tensor], dtype: torch.dtype | None = None
) -> list[torch.Tensor]:
    """The loss and its gradients by all tensors, which are converted first."""
    leaves = [it.detach().to(dtype or it.dtype).requires_grad_() for it in tensors]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value * SCALE, leaves)]


def assert_close(ours: Loss, plain: Loss, tensors: list[torch.Tensor]) -> None:
    """At most twice as far from the truth as plain PyTorch is, but for the slack."""
    dtype, device = tensors[0].dtype, tensors[0].device
    truth = graded(plain, [it.cpu() for it in tensors], torch.float64)
    usual = graded(plain, tensors)
    found = graded(ours, tensors)
    rows = tensors[0].numel() // tensors[0].shape[-1]
    cancelled = 1e-6 * SCALE / rows / 0.1  # the terms of a gradient, at a temperature of 0.1
    assert found[0].dtype == torch.float32 and found[0].shape == ()
    for place, (mine, theirs, true) in enumerate(zip(found, usual, truth, strict=True)):
        assert mine.device == device and mine.dtype == (dtype if place else torch.float32)
        slack = LOSS_SLACK
        if place:
            slack = SLACK[dtype] * off(torch.zeros_like(true), true) + cancelled
        bound = 2 * off(theirs, true) + slack
        assert off(mine, true) <= bound, (place, off(mine, true), bound)


def off(mine: torch.Tensor, true: torch.Tensor) -> float:
    return float((mine.cpu().double() - true).abs().max()) if true.numel() else 0.0


def arguments(pairing: Any, d: int, keys: int, dtype: torch.dtype) -> list[Any]:
    """Queries, companions and queue (or None) of a pairing."""
    queries = unit(pairing.queries, d, dtype=dtype)
    companions = unit(pairing.views * pairing.total, d, dtype=dtype, seed=1)
    queue = unit(keys, d, dtype=dtype, seed=2) if keys else None
    return [queries, companions, queue]
