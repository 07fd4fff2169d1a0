"""First stages of ResNets, and the networks built from them for fine-tuning."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.config.settings import Model
from patchmill.training.nets import backbones, dense
from patchmill.training.nets.patch_network import first_stages, with_new_stages


def built(name: str, stem: str = "cifar", seed: int = 0):
    torch.manual_seed(seed)
    return backbones.build(Model(name, stem=stem), 32)


def stages(name: str, stem: str = "cifar"):
    return first_stages(functools.partial(built, name, stem)).eval()


def test_the_papers_patch_network_has_1024_features_and_maps_of_2_by_2():
    """For both of its kinds of patches; the last norm with ReLU is that of the third stage."""
    for stem, size in (("cifar", 8), ("imagenet", 32)):
        network = stages("resnetv2_50", stem)
        images = torch.randn(2, 3, size, size)
        maps = network.forward_features(images)
        assert maps.shape == (2, 1024, 2, 2) and (maps >= 0).all()
        torch.testing.assert_close(network(images), maps.mean((2, 3)))
        assert network.num_features == network.norm.num_features == 1024
        torch.testing.assert_close(dense.feature_map(network, images), maps)


@pytest.mark.parametrize("name", ["resnetv2_18", "resnet18", "resnet10t"])
def test_the_first_three_stages_are_those_of_the_whole_network(name):
    network, whole = stages(name), built(name).eval()
    images = torch.randn(2, 3, 32, 32)
    if hasattr(whole, "stages"):
        maps = whole.stages[:3](whole.stem(images))
        maps = network.norm(maps)
    else:
        maps = whole.maxpool(whole.act1(whole.bn1(whole.conv1(images))))
        maps = whole.layer3(whole.layer2(whole.layer1(maps)))
    assert network.num_features == 256
    torch.testing.assert_close(network.forward_features(images), maps)
    torch.testing.assert_close(network(images), maps.mean((2, 3)))
    torch.testing.assert_close(dense.feature_map(network, images), maps)
    assert not any("layer4" in key or "stages.3" in key for key in network.state_dict())
    assert dense.layout(network, 64) == ([64, 128, 256], [1, 2, 4])


@pytest.mark.parametrize("name", ["resnetv2_18", "resnet10t"])
def test_new_stages_follow_the_trained_ones(name):
    network = stages(name)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(1)
    whole, fresh = with_new_stages(network), built(name)
    mine, trained, new = whole.state_dict(), network.state_dict(), fresh.state_dict()
    assert mine.keys() == new.keys() and whole.num_features == 512
    for key, value in mine.items():
        last = key.startswith(("norm.", "layer4.", "stages.3."))
        assert torch.equal(value, new[key] if last else trained[key]), key
    assert whole(torch.randn(2, 3, 32, 32)).shape == (2, 512)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 256)


def test_networks_without_stages_are_refused():
    with pytest.raises(MillError, match="first 3 stages of a ResNet, which VisionTransformer is"):
        first_stages(lambda: backbones.build(Model("vit_tiny_patch16_224", depth=1), 32))
    with pytest.raises(MillError, match="Linear is not the first stages of a ResNet"):
        with_new_stages(nn.Linear(2, 2))
