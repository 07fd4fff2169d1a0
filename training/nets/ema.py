"""EMA teacher: an exponential moving average of a network's parameters."""

from __future__ import annotations

import copy

import torch
from torch import nn

from patchmill.training.nets.drop_path import set_drop_path


class Teacher(nn.Module):
    """A copy of a network, moved towards it by `update`; its forward pass has no gradient.

    Batch norms have their own running statistics: in training mode, the teacher normalises its own
    batches, as in MoCo and BYOL. It has no stochastic depth.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        set_drop_path(self.module, 0.0)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)

    @torch.no_grad()
    def update(self, module: nn.Module, momentum: float) -> None:
        """teacher = momentum * teacher + (1 - momentum) * module; parameters only, not buffers."""
        teacher: list[torch.Tensor] = list(self.module.parameters())
        student: list[torch.Tensor] = list(module.parameters())
        torch._foreach_lerp_(teacher, student, 1 - momentum)
