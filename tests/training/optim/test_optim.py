"""Optimisers against the updates of the released code."""

from __future__ import annotations

import pytest
import torch
from helpers_optim import like
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose, overrides
from patchmill.training.optim import optimizers
from patchmill.training.optim.schedules import Rates

SEED = 3


def net() -> nn.Sequential:
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))


def gradients(module: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for param in module.parameters():
        param.grad = torch.randn(param.shape, generator=generator)


def wrapper(params, rates, settings):
    """solo-learn's, NMCE's and EMP-SSL's LARSWrapper around torch's SGD."""
    decay, momentum, buffers = settings.weight_decay, settings.momentum, {}
    for step, lr in enumerate(rates):
        for i, param in enumerate(params):
            g = param.grad_of(step)
            if param.value.ndim > 1:
                p_norm, g_norm = param.value.norm(), g.norm()
                local = settings.eta * p_norm / (g_norm + p_norm * decay + 1e-8)
                local = min(local / lr, torch.tensor(1.0))
                g = (g + decay * param.value) * local
            buffers[i] = g.clone() if i not in buffers else momentum * buffers[i] + g
            param.value -= lr * (g + momentum * buffers[i] if settings.nesterov else buffers[i])


def vicreg(params, rates, settings):
    """The LARS of facebookresearch/vicreg, main_vicreg.py:278-299, which has no clip."""
    buffers = {}
    for step, lr in enumerate(rates):
        for i, param in enumerate(params):
            dp = param.grad_of(step)
            if param.value.ndim > 1:
                dp = dp + settings.weight_decay * param.value
                dp = dp * (settings.eta * param.value.norm() / dp.norm())
            buffers[i] = settings.momentum * buffers.get(i, 0) + dp
            param.value -= lr * buffers[i]


class Tracked:
    def __init__(self, params: list[torch.Tensor], place: int) -> None:
        self.value, self._shapes, self._place = params[place].clone(), params, place

    def grad_of(self, step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(step)
        drawn = [torch.randn(it.shape, generator=generator) for it in self._shapes]
        return drawn[self._place]


LARS = [
    *((method, "paper", vicreg) for method in ("simclr", "vicreg", "bagssl", "byol")),
    *((method, "paper", wrapper) for method in ("tcr", "emp_ssl")),
    *((method, "cifar", wrapper) for method in ("simclr", "vicreg", "bagssl", "tcr", "emp_ssl")),
    *((method, "cifar", wrapper) for method in ("byol", "dino", "dino_resnet")),
]


@pytest.mark.parametrize(("method", "scale", "update"), LARS)
def test_lars_of_a_composed_run_is_the_released_one(method, scale, update):
    """Four steps under the settings that the command line gives, clipped as released or not."""
    settings = compose.compose([f"method={method}", f"scale={scale}", "size=32"]).optim
    module, lrs = net(), [0.3, 0.2, 0.05, 0.4]
    start = [param.detach().clone() for param in module.parameters()]
    expected = [Tracked(start, i) for i in range(len(start))]
    update(expected, lrs, settings)
    optimiser = optimizers.build(settings, module)
    for step, lr in enumerate(lrs):
        gradients(module, step)
        optimizers.set_rates(optimiser, Rates(lr, settings.weight_decay))
        optimiser.step()
    for mine, theirs in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.detach(), theirs.value)


def test_methods_with_lars_are_all_compared():
    compared = [(method, scale) for method, scale, _ in LARS]
    for method in overrides.choices("method"):
        for scale in ("paper", "cifar"):
            optim = compose.compose([f"method={method}", f"scale={scale}", "size=32"]).optim
            assert (optim.name == "lars") == ((method, scale) in compared)


def test_biases_and_norms_are_excluded():
    whole, slight = optimizers.split(net().parameters(), exclude=True)
    assert [tuple(param.shape) for param in whole] == [(7, 5), (3, 7)]
    assert [tuple(param.shape) for param in slight] == [(7,), (7,), (7,), (3,)]
    assert len(optimizers.split(net().parameters(), exclude=False)[0]) == 6


@pytest.mark.parametrize("paper", ["moco_v2", "gtsa"])
def test_weight_decay_is_set_for_decayed_groups_only(paper):
    module = net()
    optimiser = optimizers.build(like(paper), module)
    optimizers.set_rates(optimiser, Rates(0.1, 0.05))
    gradients(module, 0)
    optimiser.step()
    decays = {group["weight_decay"] for group in optimiser.param_groups}
    assert decays == ({0.05} if paper == "moco_v2" else {0.05, 0.0})
    assert {group["lr"] for group in optimiser.param_groups} == {0.1}


def test_moco_is_torchs_sgd_on_all_parameters():
    ours, theirs = net(), net()
    optimiser = optimizers.build(like("moco_v2"), ours)
    reference = torch.optim.SGD(theirs.parameters(), 0.03, momentum=0.9, weight_decay=1e-4)
    for step in range(4):
        for module in (ours, theirs):
            gradients(module, step)
        optimizers.set_rates(optimiser, Rates(0.03, 1e-4))
        optimiser.step()
        reference.step()
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, its)


@pytest.mark.parametrize("paper", ["moco_v2", "gtsa", "vicreg", "emp_ssl"])
def test_state_is_saved_and_restored(paper):
    def steps(module, optimiser, which):
        for step in which:
            gradients(module, step)
            optimizers.set_rates(optimiser, Rates(0.1, 0.01))
            optimiser.step()

    straight, stopped = net(), net()
    steps(straight, optimizers.build(like(paper), straight), range(6))
    first = optimizers.build(like(paper), stopped)
    steps(stopped, first, range(3))
    again = net()
    again.load_state_dict(stopped.state_dict())
    second = optimizers.build(like(paper), again)
    second.load_state_dict(first.state_dict())
    steps(again, second, range(3, 6))
    for mine, its in zip(again.parameters(), straight.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_a_method_without_trained_parameters_is_an_error():
    with pytest.raises(MillError, match="no parameters"):
        optimizers.build(like("moco_v2"), net().requires_grad_(False))
