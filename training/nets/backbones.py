"""Backbones: timm models without a classifier; ResNets get a stem for small images."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError
from patchmill.training.nets import vits

if TYPE_CHECKING:
    from patchmill.training.config.settings import Model

SMALL = 64  # image side in pixels up to which "auto" means the small stem


class Backbone(nn.Module):
    """A network [N, 3, H, W] -> [N, num_features]."""

    num_features: int


def build(settings: Model, size: int, *, zero_init: bool = False) -> Backbone:
    """Build a backbone for images of size x size; it also accepts other sizes.

    With `zero_init`, the last batch norm in each block of a ResNet starts with a weight of 0, so
    that the block starts as the identity; otherwise with 1. No other initial weight differs.
    """
    import timm

    name = settings.name
    if not timm.is_model(name):
        near = nearest(name, dict.fromkeys(timm.list_models()))
        raise MillError(f"model.name: timm has no model {name!r}{near}")
    is_vit = "vit" in name or "deit" in name
    options: dict[str, Any] = vits.options(settings, size, size <= SMALL) if is_vit else {}
    if settings.drop_path:
        options["drop_path_rate"] = settings.drop_path
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except TypeError as error:
        raise MillError(f"model {name} cannot be built with these settings: {error}") from None
    is_resnet = _is_pre_activation(model) or isinstance(getattr(model, "maxpool", None), nn.Module)
    if settings.stem == "cifar" or (settings.stem == "auto" and size <= SMALL and is_resnet):
        if not is_resnet:
            raise MillError(f"model.stem=cifar is for ResNets, which {name} is not")
        _use_cifar_stem(model)
    vits.finish(model, settings)
    if not zero_init:
        _ones_in_norms(model)
    return cast(Backbone, model)


def _is_pre_activation(model: nn.Module) -> bool:
    """True for pre-activation ResNets, whose first convolution and pooling are their `stem`."""
    from timm.models.resnetv2 import ResNetV2

    return isinstance(model, ResNetV2)


def _use_cifar_stem(model: Any) -> None:
    """Replace the first convolution with 3 x 3 at stride 1, and remove the pooling after it."""
    pre_activation = _is_pre_activation(model)
    width = model.feature_info[0]["num_chs"] if pre_activation else model.bn1.num_features
    convolution = nn.Conv2d(3, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if pre_activation:
        model.stem = nn.Sequential(OrderedDict(conv=convolution, pool=nn.Identity()))
        model.stem_feat_idx = 0  # index of the convolution, for feature maps
    else:
        model.conv1, model.maxpool = convolution, nn.Identity()


def _ones_in_norms(model: nn.Module) -> None:
    """Undo timm's zero initialisation of the last batch norm in each residual block."""
    for block in model.modules():
        if hasattr(block, "zero_init_last"):
            for norm in block.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    nn.init.ones_(norm.weight)
