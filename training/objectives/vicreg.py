"""The three terms of VICReg, for two views or more."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import relu

from patchmill.training.ranks import distributed


class Terms(NamedTuple):
    invariance: torch.Tensor
    variance: torch.Tensor
    covariance: torch.Tensor


def vicreg(z: torch.Tensor) -> Terms:
    """z [V, B, d]. For two views, facebookresearch/vicreg: there the variance term is the mean over
    the views, the covariance term their sum (solo-learn sums both, so that its 25 is 50 here).

    For more, the invariance term is the mean over all pairs of views, which is how far views are
    from their mean, and the others are averaged over views, counted twice for covariance.
    """
    count = len(z)
    apart = (z - z.mean(0)).square().mean() * (2 * count / (count - 1))
    everyone = distributed.gather(z.transpose(0, 1)).transpose(0, 1)
    centred = everyone - everyone.mean(1, keepdim=True)
    return Terms(apart, _variance(centred), 2 * _covariance(centred))


def _variance(centred: torch.Tensor) -> torch.Tensor:
    std = (centred.square().sum(1) / (centred.shape[1] - 1) + 1e-4).sqrt()
    return relu(1 - std).mean()


def _covariance(centred: torch.Tensor) -> torch.Tensor:
    """The mean over views of the squares beside the diagonal, over d."""
    views, images, width = centred.shape
    matrix = centred.transpose(1, 2) @ centred / (images - 1)
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    return (matrix.square().sum() - diagonal.square().sum()) / (views * width)
