"""Stochastic depth for a network that is already built."""

from __future__ import annotations

from torch import nn

from patchmill.loaders.common.errors import MillError

_NAMES = ("drop_path", "drop_path1", "drop_path2")  # in timm's residual blocks


def set_drop_path(network: nn.Module, rate: float) -> None:
    """Drop residual branches with probabilities from 0 in the first block to `rate` in the last.

    timm's rule for ViTs and ResNets. In evaluation mode nothing is dropped.
    """
    from timm.layers import DropPath

    blocks = [part for part in network.modules() if any(hasattr(part, name) for name in _NAMES)]
    if not blocks and rate:
        raise MillError(
            f"drop_path={rate:g} is for residual blocks, but {type(network).__name__} has none "
            "that timm knows: use drop_path=0"
        )
    for index, block in enumerate(blocks):
        chance = rate * index / max(len(blocks) - 1, 1)
        for name in _NAMES:
            if getattr(block, name, None) is not None or (chance and hasattr(block, name)):
                setattr(block, name, DropPath(chance))
