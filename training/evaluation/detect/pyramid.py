"""A backbone with a feature pyramid: images to maps of equal width at several strides."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from patchmill.loaders.common.errors import MillError
from patchmill.training.nets import dense
from patchmill.training.nets.backbones import Backbone

# bok3948/GTSA, downstream/mmdet: blocks of a ViT, counted from 1 and for a depth of 12, and the
# strides that their maps are rescaled to.
BLOCKS, DEPTH, STRIDES = (4, 6, 8, 12), 12, (4, 8, 16, 32)

_PROBE = 64  # side in pixels of the image used to determine the maps' sizes


class Pyramid(nn.Module):
    """The four maps of a backbone in a feature pyramid, and a fifth at twice the last stride.

    A ResNet's maps are those of its stages. A ViT's maps, all at the stride of its patches, are
    rescaled to strides 4 to 32 by transposed convolutions and pooling, without a final norm.
    """

    def __init__(self, backbone: Backbone, channels: int, norm: bool) -> None:
        super().__init__()
        self.backbone = backbone
        network = dense.trunk(backbone)
        blocks = getattr(network, "blocks", None)
        self.blocks = None if blocks is None else [-(-len(blocks) * b // DEPTH) - 1 for b in BLOCKS]
        self._wanted = None if self.blocks is None else sorted(set(self.blocks))
        patch = _patch(network) if self.blocks else 1
        widths, strides = dense.layout(backbone, math.lcm(_PROBE, patch), self._wanted)
        if self.blocks:
            widths, self.strides = [widths[0]] * len(BLOCKS), list(STRIDES)
            self.rescale = nn.ModuleList(_to_stride(widths[0], patch, s) for s in STRIDES)
        else:
            self.strides = strides
            self.rescale = nn.ModuleList(nn.Identity() for _ in strides)
        self.out_channels = channels  # torchvision's name for it
        self.pyramid = FeaturePyramidNetwork(
            widths, channels, LastLevelMaxPool(), nn.BatchNorm2d if norm else None
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map [N, 3, H, W] to the maps "0" to "3" and "pool", [N, channels, h, w] each."""
        maps = dense.feature_maps(self.backbone, images, self._wanted)
        if self.blocks is not None and self._wanted is not None:
            maps = [maps[self._wanted.index(block)] for block in self.blocks]
        scaled = [rescale(m) for rescale, m in zip(self.rescale, maps, strict=True)]
        return self.pyramid(OrderedDict((str(level), m) for level, m in enumerate(scaled)))


def _patch(network: nn.Module) -> int:
    """Return the side of a ViT's patches in pixels."""
    patch = int(network.patch_embed.patch_size[0])  # type: ignore[union-attr, index]
    if patch & (patch - 1):
        raise MillError(
            f"evaluate=detect needs a ViT with a patch size that is a power of two: strides of 4 "
            f"to 32 cannot be made from {patch}"
        )
    return patch


def _to_stride(channels: int, before: int, after: int) -> nn.Module:
    """Build layers from a map of stride `before` to stride `after`, both powers of two."""
    if before <= after:
        return nn.MaxPool2d(after // before) if before < after else nn.Identity()
    layers: list[nn.Module] = []
    while before > after:
        layers += [nn.BatchNorm2d(channels), nn.GELU()] if layers else []
        layers.append(nn.ConvTranspose2d(channels, channels, 2, stride=2))
        before //= 2
    return nn.Sequential(*layers)
