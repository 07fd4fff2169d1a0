"""Heads: shapes for a ResNet and a ViT, and Semantic FPN's formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from patchmill.training.config.settings import Model
from patchmill.training.evaluation.segment.heads import Linear, SemanticFPN
from patchmill.training.evaluation.segment.segmenter import Segmenter
from patchmill.training.nets import backbones, dense

NETWORKS = {
    "resnet": Model("resnet10t"),
    "resnet for photos": Model("resnet10t", stem="imagenet"),
    "vit": Model("vit_tiny_patch16_224", depth=2, patch=8),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(64, 64), (64, 96)])
def test_scores_have_the_size_of_the_images(name: str, shape: tuple[int, int]):
    torch.manual_seed(0)
    backbone = backbones.build(NETWORKS[name], 64)
    layout = dense.layout(backbone, 64)
    images = torch.randn(2, 3, *shape)
    for head in (SemanticFPN(layout.channels, 5, 8), Linear(layout.channels[-1], 5)):
        assert Segmenter(backbone, head, frozen=False)(images).shape == (2, 5, *shape)


def test_the_head_is_the_published_sum_of_levels():
    """The forward pass of mmsegmentation's FPNHead, on maps of one size: those of a ViT."""
    torch.manual_seed(0)
    head = SemanticFPN([6, 6, 6, 6], 3, 8).eval()
    maps = [torch.randn(1, 6, 5, 7) for _ in range(4)]
    lateral = [block(x) for block, x in zip(_convs(head.pyramid.inner_blocks), maps, strict=True)]
    for i in (2, 1, 0):
        lateral[i] = lateral[i] + lateral[i + 1]  # one size: nothing to enlarge
    levels = [block(x) for block, x in zip(_convs(head.pyramid.layer_blocks), lateral, strict=True)]
    total = torch.zeros(1, 4, 5, 7)
    for i, (level, stride) in enumerate(zip(levels, (4, 8, 16, 32), strict=True)):
        layers = list(head.levels[i])
        blocks = [layers[j : j + (4 if i else 3)] for j in range(0, len(layers), 4 if i else 3)]
        assert len(blocks) == max(1, (stride // 4).bit_length() - 1)
        for conv, norm, *_ in blocks:
            assert conv.bias is None and conv.kernel_size == (3, 3)
            level = norm(conv(level)).relu()
            if i:
                level = interpolate(level, scale_factor=2, mode="bilinear", align_corners=False)
        total = total + interpolate(level, (5, 7), mode="bilinear", align_corners=False)
    expected = head.classify(total)
    torch.testing.assert_close(head(maps), expected, rtol=1e-4, atol=1e-5)


def _convs(blocks: nn.ModuleList) -> list[nn.Module]:
    return list(blocks)


def test_a_linear_head_is_linear_once_its_norm_is_known():
    torch.manual_seed(0)
    head = Linear(4, 3)
    head([torch.randn(2, 4, 6, 6)])  # sets running statistics
    head.eval()
    x, y = torch.randn(2, 1, 4, 6, 6)
    zero = head([torch.zeros_like(x)])
    torch.testing.assert_close(
        head([x + y]) - zero, (head([x]) - zero) + (head([y]) - zero), rtol=1e-4, atol=1e-5
    )
    assert not list(head.norm.parameters())


def test_the_segmenter_does_not_change_the_given_backbone():
    backbone = backbones.build(NETWORKS["resnet"], 32)
    segmenter = Segmenter(backbone, Linear(512, 3), frozen=True)
    assert all(param.requires_grad for param in backbone.parameters())
    assert not any(param.requires_grad for param in segmenter.backbone.parameters())
    segmenter.train()
    assert not segmenter.backbone.training and segmenter.head.training and backbone.training
