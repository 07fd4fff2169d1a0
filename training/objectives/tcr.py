"""Coding rate of a batch under each view, and agreement of an image's views."""

from __future__ import annotations

import torch

from patchmill.kernels import bags
from patchmill.training.ranks import distributed


def coding_rate(z: torch.Tensor, eps: float) -> torch.Tensor:
    """1/2 logdet(I + d / (B eps) Z^T Z) of z [V, B, d], over all ranks' images; mean over views.

    Each view has its own matrix, so that no image is in a matrix twice.
    """
    all_z = distributed.gather(z.transpose(0, 1)).transpose(0, 1)
    return bags.coding_rate(all_z, eps).mean()


def agreement(z: torch.Tensor) -> torch.Tensor:
    """Mean cosine over pairs of views of an image, for unit vectors z [V, B, d]."""
    views = len(z)
    sum_over_pairs = (z.sum(0).square().sum(-1) - z.square().sum((0, 2))).mean()
    return sum_over_pairs / (views * (views - 1))
