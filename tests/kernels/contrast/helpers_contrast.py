"""Rows on the unit sphere, and tolerances against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import normalize

Loss = Callable[..., torch.Tensor]
SCALE = 3.0  # of the incoming gradient
# On top of twice the error of plain PyTorch in the same dtype; gradients: relative to the largest.
LOSS_SLACK = 4e-6
SLACK = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def unit(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
    return normalize(rows, dim=-1).to(dtype)


def loss_and_grads(
    loss: Loss, tensors: list[torch.Tensor], dtype: torch.dtype | None = None
) -> list[torch.Tensor]:
    """The loss and its gradients w.r.t. all tensors, converted to `dtype` first."""
    leaves = [it.detach().to(dtype or it.dtype).requires_grad_() for it in tensors]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value * SCALE, leaves)]


def assert_close(ours: Loss, plain: Loss, tensors: list[torch.Tensor]) -> None:
    """At most twice the error of plain PyTorch in the same dtype, plus some slack."""
    dtype, device = tensors[0].dtype, tensors[0].device
    exact = loss_and_grads(plain, [it.cpu() for it in tensors], torch.float64)
    eager = loss_and_grads(plain, tensors)
    found = loss_and_grads(ours, tensors)
    n_rows = tensors[0].numel() // tensors[0].shape[-1]
    cancelled = 1e-6 * SCALE / n_rows / 0.1  # the terms of a gradient, at a temperature of 0.1
    assert found[0].dtype == torch.float32 and found[0].shape == ()
    for place, (mine, theirs, true) in enumerate(zip(found, eager, exact, strict=True)):
        assert mine.device == device and mine.dtype == (dtype if place else torch.float32)
        slack = LOSS_SLACK
        if place:
            slack = SLACK[dtype] * error(torch.zeros_like(true), true) + cancelled
        bound = 2 * error(theirs, true) + slack
        assert error(mine, true) <= bound, (place, error(mine, true), bound)


def error(mine: torch.Tensor, true: torch.Tensor) -> float:
    return float((mine.cpu().double() - true).abs().max()) if true.numel() else 0.0


def arguments(pairing: Any, d: int, keys: int, dtype: torch.dtype) -> list[Any]:
    """Queries, batch keys and queue (or None) of a pairing."""
    queries = unit(pairing.n_queries, d, dtype=dtype)
    batch_keys = unit(pairing.views * pairing.total, d, dtype=dtype, seed=1)
    queue = unit(keys, d, dtype=dtype, seed=2) if keys else None
    return [queries, batch_keys, queue]
