"""Patch networks: the first stages of a ResNet, for patches and for whole images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.nets.backbones import Backbone


def first_stages(build: Callable[[], nn.Module], count: int = 3) -> Backbone:
    """Build one of timm's ResNets, truncated after `count` stages, with global pooling.

    A pre-activation ResNet gets a new final norm with ReLU, with the width of its last stage.
    """
    from timm.models.resnet import ResNet
    from timm.models.resnetv2 import ResNetV2

    network = build()
    if not isinstance(network, ResNet | ResNetV2):
        raise MillError(
            f"model.name: a patch network is the first {count} stages of a ResNet, which "
            f"{type(network).__name__} is not: use resnetv2_50, resnet50 or resnet10t"
        )
    cut: Any = network
    width = cut.feature_info[count]["num_chs"]
    if isinstance(network, ResNetV2):
        cut.stages = cut.stages[:count]
        cut.norm = type(cut.norm)(width)
    else:
        for number in range(count + 1, 5):
            setattr(cut, f"layer{number}", nn.Identity())
    cut.feature_info = cut.feature_info[: count + 1]
    cut.num_features = cut.head_hidden_size = width
    cut.build_whole = build
    return cast(Backbone, cut)


def with_new_stages(patch_network: Backbone) -> Backbone:
    """Copy a network truncated by `first_stages`, with the missing stages newly initialised."""
    if not hasattr(patch_network, "build_whole"):
        raise MillError(f"{type(patch_network).__name__} is not the first stages of a ResNet")
    whole: Any = patch_network.build_whole()  # type: ignore[operator]
    weights = patch_network.state_dict()
    copied = {key: value for key, value in weights.items() if not key.startswith("norm.")}
    whole.load_state_dict(copied, strict=False)  # the final norm has another width
    return cast(Backbone, whole.to(next(patch_network.parameters()).device))
