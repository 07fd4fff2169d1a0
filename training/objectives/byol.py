"""BYOL's loss between the predictor's output and the teacher's projections of other views."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize


def byol(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean of 2 - 2 cos(p_i, t_j) over ordered pairs of different views; both [V, B, d]."""
    views = len(predictions)
    predictions, targets = normalize(predictions, dim=-1), normalize(targets.detach(), dim=-1)
    mean_of_others = (targets.sum(0) - targets) / (views - 1)
    return 2 - 2 * (predictions * mean_of_others).sum(-1).mean()
