"""Layer-wise learning-rate decay, as in timm and BEiT, and a separate head rate."""

from __future__ import annotations

import pytest
import timm
from helpers_methods import Tiny
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.config.settings import Model, Optim
from patchmill.training.nets import backbones
from patchmill.training.optim import layer_groups, optimizers, schedules


def rates(network, groups) -> dict[str, tuple[float, bool]]:
    """Scale and weight decay of each parameter, by its name."""
    by_id = {
        id(param): (group.get("scale", 1.0), group["decays"])
        for group in groups
        for param in group["params"]
    }
    return {name: by_id[id(param)] for name, param in network.named_parameters()}


def test_rates_fall_from_the_head_to_the_first_layer():
    """MAE's and GTSA's rule: 0.65 to the power of the layers above, the head included."""
    vit = backbones.build(Model(name="vit_tiny_patch16_224", depth=2, patch=8), 16)
    head = nn.Linear(vit.num_features, 3)
    settings = Optim(name="adamw", lr=1e-3, weight_decay=0.05)
    groups = layer_groups.build(settings, vit, head, layer_decay=0.65)
    network = nn.ModuleDict({"backbone": vit, "head": head})
    result = rates(network, groups)
    assert len(result) == sum(len(group["params"]) for group in groups)
    assert result["head.weight"] == (1.0, True) and result["head.bias"] == (1.0, False)
    for name, power, decays in [
        ("blocks.1.mlp.fc1.weight", 1, True),
        ("blocks.1.norm1.weight", 1, False),
        ("blocks.0.attn.qkv.bias", 2, False),
        ("blocks.0.attn.qkv.weight", 2, True),
        ("patch_embed.proj.weight", 3, True),
        ("cls_token", 3, False),
        ("pos_embed", 3, False),
    ]:
        scale, has_decay = result[f"backbone.{name}"]
        assert scale == pytest.approx(0.65**power) and has_decay is decays, name


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_layers_are_those_of_timms_whole_model(name):
    """A backbone and a head have the scales that timm gives to a model with its classifier."""
    backbone = timm.create_model(name, num_classes=0)
    whole = timm.create_model(name, num_classes=5)
    head = nn.Linear(backbone.num_features, 5)
    result = rates(backbone, layer_groups.build(Optim(), backbone, head, layer_decay=0.8))
    for group in timm.optim.param_groups_layer_decay(whole, layer_decay=0.8):
        ids = set(map(id, group["params"]))
        for parameter, values in whole.named_parameters():
            if id(values) in ids and parameter in result:
                assert result[parameter][0] == pytest.approx(group["lr_scale"]), parameter


def test_a_head_has_its_own_rate_on_the_same_schedule():
    backbone, head = Tiny(), nn.Linear(6, 3)
    settings = Optim(name="sgd", lr=0.01, weight_decay=0.0, exclude=False)
    groups = layer_groups.build(settings, backbone, head, head_scale=20.0)
    optimiser = optimizers.build_groups(settings, groups)
    optimizers.set_rates(optimiser, schedules.rates_at(settings, 256, 3, 10, 5))
    (of_backbone, of_head) = optimiser.param_groups
    assert of_head["lr"] == pytest.approx(20 * of_backbone["lr"]) and of_backbone["lr"] < 0.01
    assert len(of_backbone["params"]) == 4 and len(of_head["params"]) == 2


def test_a_network_without_numbered_layers_is_an_error():
    with pytest.raises(
        MillError, match=r"layer_decay=0.5 is for networks whose layers timm numbers"
    ):
        layer_groups.build(Optim(), Tiny(), nn.Linear(6, 3), layer_decay=0.5)
