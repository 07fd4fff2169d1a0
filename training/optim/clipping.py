"""Gradient clipping of each parameter separately."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from patchmill.training.ranks import sharding


@torch.no_grad()
def clip_each(params: Sequence[nn.Parameter], max_norm: float) -> None:
    """Scale down every gradient whose norm exceeds `max_norm` (DINO's clip_gradients)."""
    grads = [param.grad for param in params if param.grad is not None]
    norms = torch.stack([sharding.full_norm(norm) for norm in torch._foreach_norm(grads)])
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for grad, factor in zip(grads, factors.unbind(), strict=True):
        grad.mul_(factor)
