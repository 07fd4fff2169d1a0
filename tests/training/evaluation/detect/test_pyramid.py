"""Pyramids on ResNets and ViTs: strides, widths, blocks, and backbones that have none."""

from __future__ import annotations

import helpers_detection as helpers
import pytest
import torch
from helpers_methods import Tiny
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.detect.pyramid import Pyramid

LEVELS = ["0", "1", "2", "3", "pool"]


def check(pyramid: Pyramid, strides: list[int]) -> None:
    """Sizes of the maps of an image of 64 x 96."""
    with torch.no_grad():
        maps = pyramid.eval()(torch.randn(2, 3, 64, 96))
    assert list(maps) == LEVELS and pyramid.strides == strides
    for level, stride in zip(maps.values(), [*strides, 2 * strides[-1]], strict=True):
        assert level.shape == (2, 8, -(-64 // stride), -(-96 // stride))


@pytest.mark.parametrize(("stem", "first"), [("imagenet", 4), ("cifar", 1)])
def test_resnet(stem: str, first: int):
    check(Pyramid(helpers.backbone(stem=stem), 8, norm=True), [first * 2**i for i in range(4)])


@pytest.mark.parametrize("patch", [4, 8, 16, 32])
def test_vit(patch: int):
    backbone = helpers.backbone(name="vit_tiny_patch16_224", stem="auto", patch=patch, depth=2)
    check(Pyramid(backbone, 8, norm=False), [4, 8, 16, 32])


def test_layers_of_a_vit_as_released():
    """Stride 4 by two transposed convolutions with batch norm and GELU between them, and so on."""
    backbone = helpers.backbone(name="vit_tiny_patch16_224", stem="auto", patch=16, depth=12)
    pyramid = Pyramid(backbone, 8, norm=False)
    assert pyramid.blocks == [3, 5, 7, 11]
    up, pool = nn.ConvTranspose2d, nn.MaxPool2d
    first, second, third, fourth = pyramid.rescale
    assert [type(layer) for layer in first] == [up, nn.BatchNorm2d, nn.GELU, up]
    assert [type(layer) for layer in second] == [up]
    assert isinstance(third, nn.Identity) and isinstance(fourth, pool) and fourth.kernel_size == 2
    assert all(layer.kernel_size == layer.stride == (2, 2) for layer in (*second, first[0]))


def test_blocks_scale_with_the_depth():
    deep, flat = (
        Pyramid(helpers.backbone(name="vit_tiny_patch16_224", stem="auto", depth=d), 8, norm=False)
        for d in (6, 2)
    )
    assert deep.blocks == [1, 2, 3, 5] and flat.blocks == [0, 0, 1, 1]


def test_maps_have_no_final_norm():
    backbone = helpers.backbone(name="vit_tiny_patch16_224", stem="auto", depth=2)
    pyramid = Pyramid(backbone, 8, norm=False).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = pyramid(images)["3"]
        backbone.norm.weight.zero_()
        assert torch.equal(pyramid(images)["3"], before)


def test_batch_norm_in_the_pyramid():
    for norm in (True, False):
        layers = Pyramid(helpers.backbone(), 8, norm=norm).pyramid.modules()
        assert any(isinstance(layer, nn.BatchNorm2d) for layer in layers) == norm


def test_backbones_without_a_pyramid():
    with pytest.raises(MillError, match="Tiny has no feature maps"):
        Pyramid(Tiny(), 8, norm=False)  # type: ignore[arg-type]  # no backbone of timm
    odd = helpers.backbone(name="vit_tiny_patch16_224", stem="auto", depth=1, patch=14)
    with pytest.raises(MillError, match="strides of 4 to 32 cannot be made from 14"):
        Pyramid(odd, 8, norm=False)
