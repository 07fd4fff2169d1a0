"""Plain ResNets, which torchvision, transformers and detectron2 also have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from patchmill.training.exports.encoder import Encoder, weights

_KEY = re.compile(
    r"(conv1|bn1|layer[1-4]\.\d+\.(conv[1-3]|bn[1-3]|downsample\.[01]))"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


@dataclass(frozen=True)
class PlainResNet:
    depths: list[int]  # number of blocks in each stage
    channels: list[int]  # of each stage's output
    block: Literal["basic", "bottleneck"]
    inner: int  # width of the first block's convolutions
    groups: int
    weights: dict[str, torch.Tensor]  # by timm's names, which are also torchvision's


def read(encoder: Encoder, library: str, *, small_stem: bool = False) -> PlainResNet:
    """Read a ResNet's structure and weights; raise a MillError if it is not a plain one.

    With `small_stem`, the stem for small images is allowed.
    """
    network = encoder.timm_model(library)
    if reason := _difference(network, small_stem):
        raise encoder.unsupported(library, reason)
    stages = [getattr(network, f"layer{number}") for number in (1, 2, 3, 4)]
    is_bottleneck = hasattr(stages[0][0], "conv3")
    last = "conv3" if is_bottleneck else "conv2"
    return PlainResNet(
        depths=[len(stage) for stage in stages],
        channels=[getattr(stage[0], last).out_channels for stage in stages],
        block="bottleneck" if is_bottleneck else "basic",
        inner=stages[0][0].conv1.out_channels,
        groups=stages[0][0].conv2.groups,
        weights=weights(network),
    )


def has_cifar_stem(network: Any) -> bool:
    """True for the small stem of nets/backbones.py: a 3 x 3 convolution at stride 1, no pooling."""
    conv, pool = getattr(network, "conv1", None), getattr(network, "maxpool", None)
    return isinstance(conv, nn.Conv2d) and conv.stride == (1, 1) and isinstance(pool, nn.Identity)


def cifar_stem_lines(network: Any) -> list[str]:
    """Return lines of Python that give a ResNet `model` the stem for small images."""
    return [
        f"model.conv1 = torch.nn.Conv2d(3, {network.bn1.num_features}, 3, padding=1, bias=False)",
        "model.maxpool = torch.nn.Identity()",
    ]


def _difference(network: Any, small_stem: bool) -> str:
    """Describe how a network differs from a plain ResNet; empty if it does not."""
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    if not isinstance(network, ResNet):
        return "it is not a plain ResNet"
    if other := [key for key in network.state_dict() if not _KEY.fullmatch(key)]:
        return f"it is not a plain ResNet, as it has {other[0]}"
    stages = [getattr(network, f"layer{number}") for number in (1, 2, 3, 4)]
    if not all(isinstance(stage, nn.Sequential) for stage in stages):
        return "it has fewer than four stages"
    conv, pool, is_small = network.conv1, network.maxpool, has_cifar_stem(network)
    for holds, reason in [
        (small_stem or not is_small, "it has the stem for small images (model.stem=cifar)"),
        (is_small or conv.kernel_size == (7, 7), "its first convolution is not 7 x 7"),
        (is_small or isinstance(pool, nn.MaxPool2d), "it has no max-pooling"),
        (_all_are(network, "downsample", nn.Sequential), "its shortcuts are not convolutions"),
        (_all_are(network, "act1", nn.ReLU), "its activations are not ReLUs"),
        (_all_are(network, "bn1", nn.BatchNorm2d), "its norms are not batch norms"),
        (_all_are(network, "aa", nn.Identity), "it blurs when downsampling"),
        (network.global_pool.pool_type == "avg", "its h is not the mean of the last map"),
        (
            all(type(block) in (BasicBlock, Bottleneck) for block in stages[0]),
            "its blocks are not those of a plain ResNet",
        ),
    ]:
        if not holds:
            return reason
    return ""


def _all_are(network: nn.Module, name: str, kind: type) -> bool:
    """True if every submodule of that name is of the type, or None."""
    parts = [getattr(module, name, None) for module in network.modules()]
    return all(part is None or isinstance(part, kind) for part in parts)
