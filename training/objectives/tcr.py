"""The coding rate of a batch under each view, and how much the views of an image agree."""

from __future__ import annotations

import torch

from patchmill.kernels.bags import coding_rate
from patchmill.training.ranks import distributed


def rate(z: torch.Tensor, eps: float) -> torch.Tensor:
    """The mean over views of 1/2 logdet(I + d / (B eps) Z^T Z), over all ranks' images.

    Of z [V, B, d], so that no image is in one of these matrices twice.
    """
    everyone = distributed.gather(z.transpose(0, 1)).transpose(0, 1)
    return coding_rate(everyone, eps).mean()


def agreement(z: torch.Tensor) -> torch.Tensor:
    """The mean cosine of two views of an image, for z [V, B, d] of unit length."""
    count = len(z)
    of_all = (z.sum(0).square().sum(-1) - z.square().sum((0, 2))).mean()
    return of_all / (count * (count - 1))
