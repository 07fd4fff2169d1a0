"""Feature maps of backbones, and ViTs with DINO's position embeddings."""

from __future__ import annotations

import math

import pytest
import torch
from helpers_methods import Tiny
from torch import nn
from torch.nn import functional as F

from patchmill.loaders.common.errors import MillError
from patchmill.training.config.settings import Model
from patchmill.training.nets import backbones, dense
from patchmill.training.nets.ema import Teacher

VIT = Model("vit_tiny_patch16_224", depth=4)


@pytest.fixture(params=["resnet10t", "vit_tiny_patch16_224", "resnetv2_18"])
def backbone(request):
    torch.manual_seed(0)
    return backbones.build(Model(request.param, depth=4 if "vit" in request.param else None), 64)


def test_the_mean_of_the_last_map_of_a_resnet_is_h():
    backbone = backbones.build(Model("resnet10t"), 64).eval()
    images = torch.randn(2, 3, 64, 64)
    maps = dense.feature_map(backbone, images)
    torch.testing.assert_close(maps.mean((2, 3)), backbone(images))


def test_the_mean_of_the_last_map_of_a_vit_is_h_with_pool_mean():
    model = Model("vit_tiny_patch16_224", depth=2, pool="mean", positions="dino")
    backbone = backbones.build(model, 64).eval()
    for size in (64, 32):
        images = torch.randn(2, 3, size, size)
        maps = dense.feature_map(backbone, images)
        assert maps.shape == (2, 192, size // 4, size // 4)
        torch.testing.assert_close(maps.mean((2, 3)), backbone(images))


def test_layouts_say_what_the_maps_are(backbone):
    layout = dense.layout(backbone, 64)
    maps = dense.feature_maps(backbone, torch.zeros(1, 3, 64, 64))
    assert layout.channels == [one.shape[1] for one in maps]
    assert layout.strides == [64 // one.shape[2] for one in maps]
    assert len(maps) == 4 and backbone.training
    if hasattr(backbone, "blocks"):
        assert layout.strides == [4] * 4
    else:
        assert layout.strides[1:] == [2 * stride for stride in layout.strides[:-1]]


def test_maps_of_chosen_blocks_have_no_final_norm():
    backbone = backbones.build(VIT, 64).eval()
    images = torch.randn(2, 3, 64, 64)
    tokens = backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(images)))
    for block in backbone.blocks[:3]:
        tokens = block(tokens)
    (maps,) = dense.feature_maps(backbone, images, [2])
    torch.testing.assert_close(maps.flatten(2).mT, tokens[:, 1:])


def test_class_tokens_of_the_last_blocks_are_those_of_dinos_probe():
    """get_intermediate_layers of facebookresearch/dino: each after the final norm."""
    backbone = backbones.build(VIT, 64).eval()
    images = torch.randn(2, 3, 64, 64)
    tokens, expected = backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(images))), []
    for block in backbone.blocks:
        tokens = block(tokens)
        expected.append(backbone.norm(tokens)[:, 0])
    for blocks in (1, 3, 4):
        features = dense.LastClassTokens(backbone, blocks)(images)
        torch.testing.assert_close(features, torch.cat(expected[-blocks:], -1))
    assert dense.has_class_token(backbone)
    assert not dense.has_class_token(backbones.build(Model("resnet10t"), 64))


def test_a_backbone_without_maps_is_an_error():
    with pytest.raises(MillError, match="Tiny has no feature maps"):
        dense.feature_map(Tiny(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(MillError, match="no layer 4"):
        dense.feature_maps(backbones.build(VIT, 32), torch.zeros(1, 3, 32, 32), [4])


# ----------------------------------------------------------------------------- DINO's positions


def official_positions(pos_embed: torch.Tensor, side: int) -> torch.Tensor:
    """interpolate_pos_encoding of facebookresearch/dino, vision_transformer.py."""
    count, dim = pos_embed.shape[1] - 1, pos_embed.shape[-1]
    if side * side == count:
        return pos_embed
    root = int(math.sqrt(count))
    patches = F.interpolate(
        pos_embed[:, 1:].reshape(1, root, root, dim).permute(0, 3, 1, 2),
        scale_factor=((side + 0.1) / root, (side + 0.1) / root),
        mode="bicubic",
    )
    assert patches.shape[-2:] == (side, side)
    return torch.cat((pos_embed[:, :1], patches.permute(0, 2, 3, 1).view(1, -1, dim)), dim=1)


@pytest.mark.parametrize("side", [14, 6, 7, 16])
def test_positions_are_resized_as_in_dino(side):
    model = Model("vit_tiny_patch16_224", depth=1, positions="dino")
    backbone = backbones.build(model, 224)
    patches = torch.randn(2, side, side, 192)
    first = backbone.cls_token.expand(2, -1, -1)
    expected = torch.cat([first, patches.flatten(1, 2)], 1) + official_positions(
        backbone.pos_embed, side
    )
    torch.testing.assert_close(backbone._pos_embed(patches), expected)


def test_a_teacher_drops_no_block():
    torch.manual_seed(0)
    backbone = backbones.build(Model("vit_tiny_patch16_224", depth=4, drop_path=0.5), 32).train()
    teacher = Teacher(backbone).train()
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(backbone(images), backbone(images))
    torch.testing.assert_close(teacher(images), backbone.eval()(images))


def test_small_images_get_small_patches():
    assert backbones.build(VIT, 32).patch_embed.patch_size == (4, 4)
    assert backbones.build(VIT, 96).patch_embed.patch_size == (16, 16)
    eight = Model("vit_tiny_patch16_224", depth=1, patch=8)
    assert backbones.build(eight, 32).patch_embed.patch_size == (8, 8)
    assert isinstance(backbones.build(eight, 32), nn.Module)
