"""Backbones, heads and teachers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.config.settings import Model
from patchmill.training.nets import backbones, heads
from patchmill.training.nets.ema import Teacher


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_small_images_keep_their_resolution(name):
    model = backbones.build(Model(name=name, stem="auto"), 32)
    assert model.conv1.weight.shape == (64, 3, 3, 3) and model.conv1.stride == (1, 1)
    assert model.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, model.num_features)


def test_large_images_have_the_usual_stem():
    model = backbones.build(Model(name="resnet18", stem="auto"), 224)
    assert model.forward_features(torch.zeros(1, 3, 224, 224)).shape == (1, 512, 7, 7)


def test_small_images_keep_their_resolution_in_a_pre_activation_resnet():
    for name in ("resnetv2_18", "resnetv2_18d"):
        model = backbones.build(Model(name, stem="auto"), 32)
        assert [type(layer) for layer in model.stem] == [nn.Conv2d, nn.Identity]
        assert model.stem.conv.weight.shape == (64, 3, 3, 3)
        assert model.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 512)


def test_large_images_have_the_usual_stem_of_a_pre_activation_resnet():
    model = backbones.build(Model("resnetv2_18", stem="auto"), 224)
    assert model.stem.conv.weight.shape == (64, 3, 7, 7)
    assert model.forward_features(torch.zeros(1, 3, 64, 64)).shape == (1, 512, 2, 2)


@pytest.mark.parametrize(("name", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_the_last_norm_of_each_block_begins_with_zeros_or_with_ones(name, last):
    """torchvision's zero_init_residual; nothing else differs."""
    networks = {}
    for zero_init in (False, True):
        torch.manual_seed(0)
        networks[zero_init] = backbones.build(Model(name=name), 32, zero_init=zero_init)
    ones, zeros = (networks[zero_init].state_dict() for zero_init in (False, True))
    for key, value in ones.items():
        if key.endswith("weight") and value.ndim == 1:
            assert (value == 1).all()
            assert (zeros[key] == (0 if f".{last}." in key else 1)).all()
        else:
            assert torch.equal(value, zeros[key])


def test_transformers_take_crops_of_other_sizes():
    model = backbones.build(Model(name="vit_tiny_patch16_224", drop_path=0.1), 64)
    assert {model(torch.zeros(2, 3, size, size)).shape for size in (64, 32)} == {(2, 192)}


def test_unknown_models_name_the_nearest():
    with pytest.raises(MillError, match="resnet50"):
        backbones.build(Model(name="resnet5O"), 224)
    with pytest.raises(MillError, match="cifar"):
        backbones.build(Model(name="vit_tiny_patch16_224", stem="cifar"), 32)


def test_a_head_is_linear_norm_relu_linear():
    layers = [type(layer).__name__ for layer in heads.mlp([4, 8, 8, 2])]
    assert layers == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [type(layer) for layer in heads.mlp([4, 2], norm=False, last_bias=False)] == [nn.Linear]
    assert heads.mlp([4, 8, 2], last_bias=False)[-1].bias is None
    normed = heads.mlp([4, 8, 2], last_norm=True)
    assert [type(layer).__name__ for layer in normed[3:]] == ["Linear", "BatchNorm1d"]
    assert normed[3].bias is None and not normed[4].bias.requires_grad and not normed[4].bias.any()


def test_a_teacher_is_updated_with_momentum_and_not_trained():
    student = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    teacher = Teacher(student)
    start = [param.clone() for param in teacher.parameters()]
    with torch.no_grad():
        for param in student.parameters():
            param.add_(1)
    teacher.update(student, 0.75)
    for before, after in zip(start, teacher.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.25)
        assert not after.requires_grad
    assert not teacher(torch.randn(4, 3)).requires_grad
    assert not any(name.startswith("teacher") for name, _ in student.named_parameters())
