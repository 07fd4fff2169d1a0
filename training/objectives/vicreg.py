"""VICReg's three terms, for two or more views."""

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
    """Terms of z [V, B, d], with variance and covariance over all ranks' images.

    For two views, these are facebookresearch/vicreg's: the variance term is the mean over views,
    the covariance term their sum (solo-learn sums both, so that its 25 is 50 here).

    For more views, invariance is the mean over all pairs, computed from the views' distances to
    their mean; the other terms are means over views, times two for covariance.
    """
    views = len(z)
    invariance = (z - z.mean(0)).square().mean() * (2 * views / (views - 1))
    all_z = distributed.gather(z.transpose(0, 1)).transpose(0, 1)
    centred = all_z - all_z.mean(1, keepdim=True)
    return Terms(invariance, _variance(centred), 2 * _covariance(centred))


def _variance(centred: torch.Tensor) -> torch.Tensor:
    std = (centred.square().sum(1) / (centred.shape[1] - 1) + 1e-4).sqrt()
    return relu(1 - std).mean()


def _covariance(centred: torch.Tensor) -> torch.Tensor:
    """Sum of squared off-diagonal covariances over d, mean over views."""
    views, images, width = centred.shape
    matrix = centred.transpose(1, 2) @ centred / (images - 1)
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    return (matrix.square().sum() - diagonal.square().sum()) / (views * width)
