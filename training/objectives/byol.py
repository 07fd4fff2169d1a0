"""BYOL's loss: what a predictor says of a view, against the teacher's other views."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize


def byol(predicted: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """2 - 2 cos(p_i, t_j), the mean over ordered pairs of different views; both [V, B, d]."""
    count = len(predicted)
    predicted, taught = normalize(predicted, dim=-1), normalize(taught.detach(), dim=-1)
    others = (taught.sum(0) - taught) / (count - 1)
    return 2 - 2 * (predicted * others).sum(-1).mean()
