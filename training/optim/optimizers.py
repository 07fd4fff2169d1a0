"""From settings to an optimiser: which parameters decay, and which are scaled by LARS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.optim.schedules import Rates

if TYPE_CHECKING:
    from patchmill.training.config.settings import Optim


def build(settings: Optim, module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of all parameters that are trained; its rates are set before each step."""
    whole, slight = split(module.parameters(), settings.exclude)
    groups = [
        {"params": params, "decays": decays}
        for params, decays in ((whole, True), (slight, False))
        if params
    ]
    if not groups:
        raise MillError("this method has no parameters to train")
    return _BUILDERS[settings.name](settings, groups)


def split(
    params: Iterable[nn.Parameter], exclude: bool
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trained parameters that decay, and those that do not: biases and norms, if excluded."""
    trained = [param for param in params if param.requires_grad]
    slight = [param for param in trained if exclude and param.ndim < 2]
    return [param for param in trained if not (exclude and param.ndim < 2)], slight


def set_rates(optimiser: torch.optim.Optimizer, rates: Rates) -> None:
    """For the step to come."""
    for group in optimiser.param_groups:
        group["lr"] = rates.lr
        group["decay" if "decay" in group else "weight_decay"] = (
            rates.weight_decay if group["decays"] else 0.0
        )


def _sgd(settings: Optim, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, nesterov=settings.nesterov)


def _adamw(settings: Optim, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    low, high = settings.betas
    return torch.optim.AdamW(groups, lr=0.0, betas=(low, high))


def _lars(settings: Optim, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    from timm.optim import Lars

    from patchmill.training.optim.lars import VicregLars

    form = VicregLars if settings.lars == "vicreg" else Lars
    for group in groups:
        group["always_adapt"] = group["decays"]
        if form is VicregLars:
            group["decay"] = 0.0
    return form(
        groups,
        lr=0.0,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        trust_coeff=settings.eta,
        trust_clip=settings.lars_clip,
    )


_BUILDERS = {"sgd": _sgd, "adamw": _adamw, "lars": _lars}
