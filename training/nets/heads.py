"""Projectors and predictors: small stacks of linear layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn


def mlp(sizes: Sequence[int], *, norm: bool = True, last_bias: bool = True) -> nn.Sequential:
    """Linear layers from sizes[0] to sizes[-1], between them [batch norm and] ReLU."""
    layers: list[nn.Module] = []
    for inner, outer in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(inner, outer), *([nn.BatchNorm1d(outer)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1], bias=last_bias))
