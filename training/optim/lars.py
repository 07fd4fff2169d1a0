"""VICReg's variant of LARS, in addition to timm's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.optim import Lars


class VicregLars(Lars):
    """LARS of facebookresearch/vicreg: trust ratio eta |w| / |g + wd w|.

    timm's Lars has |g| + wd |w| in the denominator. Weight decay is the group's `decay`, so that
    timm's step adds none. The released code never clips the ratio.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params and group["decay"]:
                torch._foreach_add_([p.grad for p in params], params, alpha=group["decay"])
        super().step()
        return loss
