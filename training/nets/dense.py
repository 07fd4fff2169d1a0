"""Feature maps of backbones, for dense methods and evaluations.

Built on timm's `forward_intermediates`, which ResNets, ViTs and most other timm models have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.nets.backbones import Backbone

MAPS = 4  # feature maps of a pyramid


class Layout(NamedTuple):
    """Channels and strides of the feature maps that `feature_maps` returns."""

    channels: list[int]
    strides: list[int]  # in image pixels


def feature_map(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    """Return the last feature map, [N, C, h, w].

    For a ViT, the patch tokens after its final norm; for a ResNet, the output of its last stage.
    """
    network = trunk(backbone)
    (maps,) = _intermediates(network, images, [_count(network) - 1], norm=True)
    return maps


def feature_maps(
    backbone: Backbone, images: torch.Tensor, layers: Sequence[int] | None = None
) -> list[torch.Tensor]:
    """Return feature maps [N, C, h, w] at several depths, without the final norm.

    For a ViT, the outputs of the blocks `layers`, counted from 0; by default four, evenly spaced up
    to the last. For a ResNet, the outputs of its stages, which `layers` counts.
    """
    network = trunk(backbone)
    count = _count(network)
    first = 1 if _is_resnet(network) else 0  # a ResNet's 0 is its stem
    if layers is None:
        spaced = [-(-count * (index + 1) // MAPS) - 1 for index in range(MAPS)]
        layers = range(count - first) if first else spaced
    outside = [layer for layer in layers if not 0 <= layer < count - first]
    if outside:
        raise MillError(
            f"{type(network).__name__} has {count - first} layers with feature maps, counted from "
            f"0: there is no layer {outside[0]}"
        )
    return _intermediates(network, images, [layer + first for layer in layers], norm=False)


class LastClassTokens(nn.Module):
    """Class tokens of a ViT's last blocks, each after the final norm: [N, blocks * C]."""

    def __init__(self, backbone: Backbone, blocks: int = 4) -> None:
        super().__init__()
        self.backbone, self.blocks = backbone, blocks

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        layers = self.backbone.forward_intermediates(  # type: ignore[operator]
            images,
            indices=min(self.blocks, len(self.backbone.blocks)),  # type: ignore[arg-type]
            norm=True,
            return_prefix_tokens=True,
            intermediates_only=True,
        )
        return torch.cat([prefix[:, 0] for _, prefix in layers], dim=1)


def has_class_token(backbone: nn.Module) -> bool:
    """True for a ViT with a class token."""
    return hasattr(backbone, "blocks") and getattr(backbone, "cls_token", None) is not None


def map_channels(backbone: Backbone) -> int:
    """Return the number of channels of the last feature map."""
    network = trunk(backbone)
    _count(network)  # raises for a backbone without maps
    return cast(Backbone, network).num_features


@torch.no_grad()
def layout(backbone: Backbone, size: int, layers: Sequence[int] | None = None) -> Layout:
    """Determine the layout of `feature_maps` for images of size x size by a forward pass."""
    with _evaluating(backbone):
        maps = feature_maps(backbone, _blank(backbone, size), layers)
    return Layout([m.shape[1] for m in maps], [round(size / m.shape[2]) for m in maps])


@torch.no_grad()
def count_positions(backbone: Backbone, size: int) -> int:
    """Return the number of positions in the last feature map of an image of size x size."""
    with _evaluating(backbone):
        return feature_map(backbone, _blank(backbone, size))[0, 0].numel()


def _blank(backbone: Backbone, size: int) -> torch.Tensor:
    return torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device)


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Enter evaluation mode, so that a forward pass does not change the statistics of norms."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def trunk(backbone: Backbone) -> nn.Module:
    """Return the network with the feature maps: a backbone, or the one that it wraps."""
    inner = getattr(backbone, "backbone", None)
    return trunk(cast(Backbone, inner)) if isinstance(inner, nn.Module) else backbone


def _intermediates(
    network: nn.Module, images: torch.Tensor, indices: list[int], norm: bool
) -> list[torch.Tensor]:
    return network.forward_intermediates(  # type: ignore[operator, no-any-return]
        images, indices=indices, norm=norm, intermediates_only=True
    )


def _is_resnet(network: nn.Module) -> bool:
    """True if the first intermediate is the stem's, not a layer's."""
    return not hasattr(network, "blocks")


def _count(network: nn.Module) -> int:
    """Return the number of intermediates: a ViT's blocks, or a ResNet's stages and stem."""
    if not hasattr(network, "forward_intermediates"):
        raise MillError(
            f"{type(network).__name__} has no feature maps, which dense evaluations and methods "
            "need: choose a ResNet or a ViT, such as model=vit_small"
        )
    blocks = getattr(network, "blocks", None)
    if blocks is not None:
        return len(blocks)
    from timm.models.resnet import ResNet

    if isinstance(network, ResNet):
        return len(network.feature_info)  # fewer than 5 for a patch network
    stages = getattr(network, "stages", None)
    return len(stages) + 1 if stages is not None else 5
