"""Convert the values of a batch's views to 0..1 and back, by their group's mean and std."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from patchmill.kernels.views.decisions import Target


def to_unit(views: Tensor, group: Target) -> Tensor:
    """Undo the normalisation of a batch's views [..., 3, h, w]: float32, 0 to 1."""
    return overwrite_with_unit(views.clone(), group)


def overwrite_with_unit(views: Tensor, group: Target) -> Tensor:
    """Like `to_unit`, for views no longer needed: reuses their memory if they are float32."""
    if views.dtype == torch.uint8:
        return views.float().div_(255)
    mean, std = channels(group, views.device)
    return views.float().mul_(std).add_(mean)


def from_unit(unit: Tensor, group: Target, dtype: torch.dtype) -> Tensor:
    """Inverse of `to_unit`; for uint8, values are rounded, and clamped to 0..1."""
    if dtype == torch.uint8:
        return (unit * 255).round_().clamp_(0, 255).to(dtype)
    mean, std = channels(group, unit.device)
    return (unit - mean).div_(std).to(dtype)


def from_normalised(values: Tensor, group: Target, dtype: torch.dtype) -> Tensor:
    """Convert normalised values [..., 3, h, w] to those of a batch of this dtype."""
    if dtype != torch.uint8:
        return values.to(dtype)
    mean, std = channels(group, values.device)
    return from_unit(values * std + mean, group, dtype)


@functools.lru_cache(maxsize=64)
def channels(group: Target, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and std of a group as [3, 1, 1]."""
    mean, std = torch.tensor((group.mean, group.std), device=device).view(2, 3, 1, 1).unbind(0)
    return mean, std
