"""A teacher: a copy of a network that follows it slowly and is not trained."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Teacher(nn.Module):
    """`update` moves it towards the network it was copied from. Call it to apply it, ungraded.

    Running statistics of batch norms are its own: it keeps the mode (`train` or `eval`) it is in,
    and normalises its batches as the networks of MoCo and BYOL do.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)

    @torch.no_grad()
    def update(self, module: nn.Module, momentum: float) -> None:
        """teacher = momentum * teacher + (1 - momentum) * module, parameters alone."""
        mine: list[torch.Tensor] = list(self.module.parameters())
        theirs: list[torch.Tensor] = list(module.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - momentum)
