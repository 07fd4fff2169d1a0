"""LARS in the two forms that the methods' authors released; both leave biases and norms alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.optim import Lars


class VicregLars(Lars):
    """q = eta |w| / |g + wd w|: the norm of the whole step, where timm's Lars takes |g| + wd |w|.

    facebookresearch/vicreg. Weight decay goes by the name `decay`, so that timm's adds none.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [param for param in group["params"] if param.grad is not None]
            if moved and group["decay"]:
                torch._foreach_add_([it.grad for it in moved], moved, alpha=group["decay"])
        super().step()
        return loss
