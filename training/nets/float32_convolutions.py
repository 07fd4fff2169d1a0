"""Convolutions that torch differentiates wrongly in bf16 on CPUs, kept in float32.

For a strided convolution of a 1 x 1 map in bf16 on a CPU, torch 2.14.1 leaves parts of the weights'
gradient uninitialised. A ResNet has such maps for views of 16 pixels.
"""

from __future__ import annotations

import torch
from torch import nn


class Float32OnTinyMaps(nn.Conv2d):
    """A convolution that computes 1 x 1 maps in float32, regardless of autocast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-2:] != (1, 1):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def keep_in_float32(network: nn.Module) -> None:
    """Turn the network's strided convolutions into `Float32OnTinyMaps`."""
    for module in network.modules():
        if type(module) is nn.Conv2d and max(module.stride) > 1:
            module.__class__ = Float32OnTinyMaps
