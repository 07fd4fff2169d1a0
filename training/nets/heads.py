"""Projectors and predictors: small stacks of linear layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn


def mlp(
    widths: Sequence[int],
    *,
    norm: bool = True,
    last_bias: bool = True,
    last_norm: bool = False,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Linear layers from widths[0] to widths[-1], with [batch norm and] `activation` between them.

    `last_norm` adds a batch norm after the last layer that scales but does not shift; the layer
    then has no bias.
    """
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths[:-1]):
        layers += [
            nn.Linear(before, after),
            *([nn.BatchNorm1d(after)] if norm else []),
            activation(),
        ]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_bias and not last_norm))
    if last_norm:
        layers.append(nn.BatchNorm1d(widths[-1]))
        layers[-1].bias.requires_grad_(False)  # type: ignore[union-attr, operator]
    return nn.Sequential(*layers)


def init_truncated_normal(module: nn.Module) -> None:
    """Draw the weights of linear layers with std 0.02, as ViTs do; biases are 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
