"""Heads from a backbone's maps to class scores: Semantic FPN and linear."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate
from torchvision.ops import FeaturePyramidNetwork


class SemanticFPN(nn.Module):
    """Semantic FPN (arXiv 1901.02446) as in mmsegmentation: FPN, and a head that sums its levels.

    Level i is upsampled by 2 i times, regardless of the maps' strides, and resized to level 0. The
    four maps of a ViT, all at stride 16, are thus treated as if at strides 4, 8, 16 and 32, as in
    GTSA's release.
    """

    def __init__(
        self, channels: Sequence[int], classes: int, width: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(channels), width)
        self.levels = nn.ModuleList(_level(i, width, width // 2) for i in range(len(channels)))
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width // 2, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map [N, channels[i], h_i, w_i] to scores [N, classes, h_0, w_0]."""
        named = OrderedDict((str(i), x) for i, x in enumerate(maps))
        first, *others = (
            level(x) for level, x in zip(self.levels, self.pyramid(named).values(), strict=True)
        )
        for level in others:
            first = first + interpolate(level, first.shape[-2:], mode="bilinear")
        return self.classify(self.dropout(first))


def _level(doublings: int, before: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(max(1, doublings)):
        conv = nn.Conv2d(width if i else before, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
    return nn.Sequential(*layers)


class Linear(nn.Module):
    """A linear classifier at each position of the last map, after normalising its channels."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.classify = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the last of maps, [N, channels, h, w], to scores [N, classes, h, w]."""
        return self.classify(self.norm(maps[-1]))
