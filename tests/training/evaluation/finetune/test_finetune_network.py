"""The classifier that is fine-tuned: its head, what it pools, and stochastic depth."""

from __future__ import annotations

import helpers_finetune
import pytest
import torch
from helpers_methods import Tiny
from timm.layers import DropPath
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.config.settings import Model
from patchmill.training.evaluation.finetune import augment, protocols
from patchmill.training.evaluation.finetune.network import Classifier, Head
from patchmill.training.nets import backbones
from patchmill.training.nets.drop_path import set_drop_path

VIT = Model(name="vit_tiny_patch16_224", depth=2, patch=8)


def vit():
    return backbones.build(VIT, 16)


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_gtsas_head_is_on_the_mean_patch_before_the_final_norm():
    backbone = vit().eval()
    network = Classifier(backbone, 3, protocols.PROTOCOLS["gtsa"].head).eval()
    inputs: list[torch.Tensor] = []
    backbone.norm.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    backbone(images())
    (tokens,) = inputs  # of the last block, the class token first
    torch.testing.assert_close(network(images()), network.head(tokens[:, 1:].mean(1)))
    assert len(inputs) == 1  # the final norm was not run again
    norm, linear = network.head
    for weight in (norm.weight, linear.weight):
        assert 0 < weight.abs().max() < 2e-4
    assert not norm.bias.any() and not linear.bias.any()


def test_every_parameter_gets_a_gradient_or_is_frozen():
    """DDP waits for the gradient of each parameter that it was given."""
    for head in (Head(), Head("patches", norm=True)):
        network = Classifier(vit().requires_grad_(False), 3, head)
        network(images()).square().sum().backward()
        for name, param in network.named_parameters():
            assert (param.grad is not None) == param.requires_grad, name
        frozen = [name for name, param in network.named_parameters() if not param.requires_grad]
        assert frozen == (
            [] if head.pool == "network" else ["backbone.norm.weight", "backbone.norm.bias"]
        )


def test_heads_begin_as_their_protocols_say():
    torch.manual_seed(0)
    linear = Classifier(vit(), 100, Head()).head[1]
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.05) and not linear.bias.any()
    assert Classifier(vit(), 100, Head(std=None)).head[1].bias.any()  # torch's default


@pytest.mark.parametrize("model", [VIT, Model(name="resnet18")])
def test_stochastic_depth_of_a_built_network_is_timms(model):
    def rates(network: nn.Module) -> list[float]:
        return [part.drop_prob for part in network.modules() if isinstance(part, DropPath)]

    plain = backbones.build(model, 32)
    assert not any(rates(plain))
    set_drop_path(plain, 0.2)
    model = Model(**{**vars(model), "drop_path": 0.2})
    expected = backbones.build(model, 32)
    assert list(filter(None, rates(plain))) == pytest.approx(list(filter(None, rates(expected))))
    plain.load_state_dict(expected.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain.eval()(x), expected.eval()(x))
    set_drop_path(plain, 0.0)
    assert not any(rates(plain))
    torch.testing.assert_close(plain.train().eval()(x), expected(x))


def test_networks_without_residual_blocks_have_no_stochastic_depth():
    set_drop_path(Tiny(), 0.0)
    with pytest.raises(MillError, match=r"drop_path=0.1 is for residual blocks, but Tiny has none"):
        set_drop_path(Tiny(), 0.1)


def test_mixing_keeps_shares_of_classes():
    protocol = protocols.override(
        protocols.PROTOCOLS["demo"], {"mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1, "erase": 0.5}
    )
    change = augment.build(protocol, 3, torch.device("cpu"))
    labels = torch.tensor([0, 1, 2, 0])
    with augment.seeded(1, 0):
        views, targets = change(images(), labels)
    assert targets.shape == (4, 3) and torch.allclose(targets.sum(1), torch.ones(4))
    assert views.shape == (4, 3, 16, 16) and not torch.equal(views, images())
    unchanged = augment.build(protocols.PROTOCOLS["demo"], 3, torch.device("cpu"))
    views, targets = unchanged(images(), labels)
    assert torch.equal(views, images()) and torch.equal(targets, labels)


def test_gtsas_protocol_trains_a_vit(tmp_path):
    overrides = {"model.name": VIT.name, "model.depth": "2", "model.patch": "8"}
    run = helpers_finetune.run(tmp_path, **overrides)
    settings = {"protocol": "gtsa_base", "lr": 0.01, "epochs": 3, "labels": 1.0}
    result = helpers_finetune.evaluate(run, **settings)
    row = result.data["finetuned"]["fine-tuned on 100 % of the labels"]
    assert 0 <= row["top1"] <= 1 and row["final_loss"] < row["first_loss"]
    used = result.data["protocols"]["gtsa_base"]
    assert (used["layer_decay"], used["drop_path"], used["optim"]["lr"]) == (0.65, 0.1, 0.01)
