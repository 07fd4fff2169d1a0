"""BYOL against google-deepmind/deepmind-research, byol/byol_experiment.py, written out."""

from __future__ import annotations

import copy

import torch
from helpers_methods import Tiny, noise, step
from torch import nn

from patchmill.training.methods import Progress
from patchmill.training.methods.byol import BYOL

SETTINGS = dict(hidden=8, dim=4)


def make(**changes) -> BYOL:
    torch.manual_seed(0)
    return BYOL(BYOL.Settings(**SETTINGS | changes), Tiny())


def regression_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """helpers.regression_loss: the squared distance of the normalised vectors."""
    x, y = x / x.norm(dim=-1, keepdim=True), y / y.norm(dim=-1, keepdim=True)
    return (x - y).square().sum(-1)


def test_the_loss_is_the_sum_over_both_directions():
    """Each view passes by itself through either network, so that batch norm sees it alone."""
    method, batch = make(), noise(16)
    batch.views["views"][:, 1].mul_(3).add_(2)  # views of unlike distributions
    with torch.no_grad():
        for param in method.teacher.parameters():
            param.add_(0.1 * torch.randn_like(param))
    official = copy.deepcopy(method)
    projected, predicted = [], []
    for view in batch.crops():
        projected.append(official.teacher.module(view).detach())
        predicted.append(official.predictor(official.projector(official.backbone(view))))
    expected = regression_loss(predicted[0], projected[1])
    expected = (expected + regression_loss(predicted[1], projected[0])).mean()
    expected.backward()
    found = method(batch).loss
    found.backward()
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(method.parameters(), official.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    for mine, theirs in zip(method.buffers(), official.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_heads_end_in_a_layer_without_bias():
    """networks.MLP."""
    method = make()
    for head, widths in ((method.projector, (6, 8, 4)), (method.predictor, (4, 8, 4))):
        first, norm, act, last = head
        assert (first.in_features, first.out_features, last.out_features) == widths
        assert first.bias is not None and last.bias is None
        assert isinstance(norm, nn.BatchNorm1d) and isinstance(act, nn.ReLU)


def test_the_teacher_has_no_gradient_and_moves_after_the_update():
    method = make(momentum=0.75)
    start = [param.clone() for param in method.teacher.parameters()]
    method.on_step_start(Progress(0, 4, 0.0, 1))
    step(method, noise(16))
    assert all(param.grad is None for param in method.teacher.parameters())
    assert all(map(torch.equal, method.teacher.parameters(), start))
    method.after_update(Progress(0, 4, 0.0, 1))
    student = nn.Sequential(method.backbone, method.projector).parameters()
    for mine, old, new in zip(method.teacher.parameters(), start, student, strict=True):
        torch.testing.assert_close(mine, 0.75 * old + 0.25 * new.detach())


def test_the_momentum_ends_at_1():
    method = make(momentum=0.75)
    step(method, noise(16))
    before = [param.clone() for param in method.teacher.parameters()]
    method.after_update(Progress(4, 4, 1.0, 1))
    assert all(map(torch.equal, method.teacher.parameters(), before))


def test_either_network_can_be_evaluated():
    method = make()
    assert method.encoder() is method.encoder("student") is method.backbone
    backbone, projector = method.networks("teacher")
    assert [backbone, projector] == list(method.teacher.module)
