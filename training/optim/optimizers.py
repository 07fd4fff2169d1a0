"""Build an optimiser from settings, with parameter groups for weight decay and LARS scaling."""

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
    """Build an optimiser for all trained parameters; `set_rates` sets the rates of each step."""
    return build_groups(settings, groups(module.parameters(), settings.exclude))


def build_groups(settings: Optim, parts: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build an optimiser for parameter groups made by `groups`."""
    if not parts:
        raise MillError("this method has no parameters to train")
    return _BUILDERS[settings.name](settings, parts)


def groups(params: Iterable[nn.Parameter], exclude: bool) -> list[dict[str, Any]]:
    """Group parameters with and without weight decay.

    A group may also have a `scale`, a factor of its learning rate.
    """
    decayed, excluded = split(params, exclude)
    return [
        {"params": params, "decays": decays}
        for params, decays in ((decayed, True), (excluded, False))
        if params
    ]


def split(
    params: Iterable[nn.Parameter], exclude: bool
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split trained parameters into those with and without weight decay.

    With `exclude`, biases and norms have none.
    """
    trained = [param for param in params if param.requires_grad]
    excluded = [param for param in trained if exclude and param.ndim < 2]
    return [param for param in trained if not (exclude and param.ndim < 2)], excluded


def set_rates(optimiser: torch.optim.Optimizer, rates: Rates) -> None:
    """Set the learning rate and weight decay of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rates.lr * group.get("scale", 1.0)
        group["decay" if "decay" in group else "weight_decay"] = (
            rates.weight_decay if group["decays"] else 0.0
        )


def _sgd(settings: Optim, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, nesterov=settings.nesterov)


def _adamw(settings: Optim, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    beta1, beta2 = settings.betas
    return torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2))


def _lars(settings: Optim, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    from timm.optim import Lars

    from patchmill.training.optim.lars import VicregLars

    variant = VicregLars if settings.lars == "vicreg" else Lars
    for group in groups:
        group["always_adapt"] = group["decays"]
        if variant is VicregLars:
            group["decay"] = 0.0
    return variant(
        groups,
        lr=0.0,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        trust_coeff=settings.eta,
        trust_clip=settings.lars == "wrapper" and settings.lars_clip,
    )


_BUILDERS = {"sgd": _sgd, "adamw": _adamw, "lars": _lars}
