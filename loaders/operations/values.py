"""Values of views: from what a batch holds to 0..1, and back. A group's mean and std define it."""

from __future__ import annotations

import torch
from torch import Tensor

from patchmill.kernels.views.decisions import Target


def to_unit(views: Tensor, group: Target) -> Tensor:
    """Views [..., 3, h, w] of a batch as float32, 0 to 1: before normalisation."""
    if views.dtype == torch.uint8:
        return views.float().div_(255)
    mean, std = channels(group, views.device)
    return views.float() * std + mean


def from_unit(unit: Tensor, group: Target, dtype: torch.dtype) -> Tensor:
    """Inverse of `to_unit`; for uint8, values are rounded, and clamped to 0..1."""
    if dtype == torch.uint8:
        return (unit * 255).round_().clamp_(0, 255).to(dtype)
    mean, std = channels(group, unit.device)
    return ((unit - mean) / std).to(dtype)


def fill_values(normal: Tensor, group: Target, dtype: torch.dtype) -> Tensor:
    """Normalised values [..., 3, h, w] as a batch of this dtype holds them."""
    if dtype != torch.uint8:
        return normal.to(dtype)
    mean, std = channels(group, normal.device)
    return from_unit(normal * std + mean, group, dtype)


def channels(group: Target, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and std of a group as [3, 1, 1]."""
    mean, std = torch.tensor((group.mean, group.std)).view(2, 3, 1, 1).unbind(0)
    if device.type == "cuda":  # from pinned memory, so that nothing waits
        return tuple(x.pin_memory().to(device, non_blocking=True) for x in (mean, std))  # type: ignore[return-value]
    return mean, std
