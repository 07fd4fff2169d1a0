"""Heads on feature maps: GTSA's projector, predictor and rotation head."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

ROTATIONS = 4  # quarter turns
HIDDEN, BOTTLENECK = 768, 128  # widths of the rotation head


def projector(channels: int, dim: int, first_residual: bool = True) -> nn.Sequential:
    """Two residual blocks and a 1 x 1 convolution: [N, channels, h, w] -> [N, dim, h, w]."""
    blocks = [
        MapBlock(channels, residual=first_residual),
        MapBlock(channels, residual=True),
    ]
    return _init_convolutions(nn.Sequential(*blocks, nn.Conv2d(channels, dim, 1)))


def predictor(dim: int) -> nn.Sequential:
    """A block without a residual and a 1 x 1 convolution."""
    return _init_convolutions(nn.Sequential(MapBlock(dim, residual=False), nn.Conv2d(dim, dim, 1)))


def rotation_head(channels: int) -> nn.Sequential:
    """Logits of a view's quarter turns, [N, 4], from the mean [N, channels] of its map.

    Weights keep torch's default initialisation, as in the release.
    """
    return nn.Sequential(
        *(nn.Linear(channels, HIDDEN), nn.LayerNorm(HIDDEN), nn.GELU()),
        *(nn.Linear(HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN), nn.GELU()),
        *(nn.Linear(HIDDEN, BOTTLENECK), nn.LayerNorm(BOTTLENECK)),
        nn.Linear(BOTTLENECK, ROTATIONS),
    )


class MapBlock(nn.Module):
    """3 x 3 convolution, layer norm over channels without weights, GELU; optionally residual."""

    def __init__(self, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x).permute(0, 2, 3, 1)
        out = F.gelu(F.layer_norm(out, out.shape[-1:])).permute(0, 3, 1, 2)
        return x + out if self.residual else out


def _init_convolutions(module: nn.Sequential) -> nn.Sequential:
    """Draw weights with std 0.02; biases are 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
