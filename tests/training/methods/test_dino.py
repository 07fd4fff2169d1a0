"""DINO against facebookresearch/dino: loss, centre, schedules, frozen prototypes, teacher."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers_methods import Tiny, noise_groups, step
from torch import nn
from torch.nn import functional as F

from patchmill.loaders import presets
from patchmill.loaders.common.errors import MillError
from patchmill.training.methods import Progress
from patchmill.training.methods.dino import DINO, _teacher_temperature
from patchmill.training.objectives.dino import distillation

CROPS = {"global": (2, 8), "local": (3, 5)}


def make(**changes) -> DINO:
    torch.manual_seed(0)
    settings = DINO.Settings(**(dict(hidden=8, dim=4, prototypes=12) | changes))
    return DINO(settings, Tiny())


def at(step: int, steps: int = 20, per_epoch: int = 5) -> Progress:
    return Progress(step, steps, step / per_epoch, steps // per_epoch)


def official_loss(student, teacher, centre, student_temp, teacher_temp):
    """DINOLoss.forward of main_dino.py; outputs are rows of all crops, crop by crop."""
    crops = len(student)
    student_out = [out / student_temp for out in student]
    teacher_out = [F.softmax((out - centre) / teacher_temp, dim=-1).detach() for out in teacher]
    total, terms = 0, 0
    for iq, q in enumerate(teacher_out):
        for v in range(crops):
            if v == iq:
                continue
            loss = torch.sum(-q * F.log_softmax(student_out[v], dim=-1), dim=-1)
            total, terms = total + loss.mean(), terms + 1
    return total / terms


@pytest.mark.parametrize("views", [2, 5])
def test_the_loss_is_the_official_one(views):
    torch.manual_seed(1)
    student = torch.randn(views, 6, 9, dtype=torch.float64, requires_grad=True)
    teacher, centre = torch.randn(2, 6, 9, dtype=torch.float64), torch.randn(9).double()
    expected = official_loss(student, teacher, centre, 0.1, 0.04)
    targets = F.softmax((teacher - centre) / 0.04, dim=-1)
    loss = distillation(student / 0.1, targets)
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(
        torch.autograd.grad(loss, student), torch.autograd.grad(expected, student), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_a_step_is_that_of_the_official_program():
    """Networks on each resolution, loss, centre, EMA after the update, over several steps."""
    method = make(momentum=0.9, freeze=0, warmup_temperature=3, first_temperature=0.02)
    student = copy.deepcopy(method._student())
    teacher, centre = copy.deepcopy(method.teacher.module), torch.zeros(12)
    momenta = 1 + 0.5 * (0.9 - 1) * (1 + np.cos(np.pi * np.arange(20) / 20))
    temperatures = np.concatenate((np.linspace(0.02, 0.04, 3), np.ones(7) * 0.04))
    for number in range(20):
        batch, progress = noise_groups(6, CROPS, seed=number), at(number)
        backbone, head, last = student
        globals_, locals_ = batch.flat("global"), batch.flat("local")
        features = torch.cat([backbone(globals_), backbone(locals_)])
        out = last(head(features))
        with torch.no_grad():
            teacher_out = teacher(globals_)
        temperature = temperatures[int(progress.epoch)]
        expected = official_loss(out.chunk(5), teacher_out.chunk(2), centre, 0.1, temperature)
        centre = centre * 0.9 + teacher_out.mean(0) * (1 - 0.9)
        student.zero_grad()
        expected.backward()
        with torch.no_grad():
            for param in student.parameters():
                if param.grad is not None:
                    param -= 0.1 * param.grad
            for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                mine.mul_(momenta[number]).add_((1 - momenta[number]) * theirs)

        method.on_step_start(progress)
        torch.testing.assert_close(step(method, batch), expected)
        method.after_update(progress)
    for mine, theirs in zip(method.teacher.parameters(), teacher.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.centre, centre, rtol=1e-4, atol=1e-5)


def test_prototypes_have_norm_1_and_see_unit_vectors():
    """weight_norm with weight_g = 1 and no gradient, on normalised bottlenecks."""
    method = make()
    with torch.no_grad():
        method.last_layer.layer.parametrizations.weight.original1.mul_(7)
    z = torch.randn(5, 4)
    direction = method.last_layer.layer.parametrizations.weight.original1
    expected = F.normalize(z) @ F.normalize(direction).T
    torch.testing.assert_close(method.last_layer(z), expected)
    trained = [p for p in method.last_layer.parameters() if p.requires_grad]
    assert [tuple(p.shape) for p in trained] == [(12, 4)]
    both = [p for p in make(fixed_gain=False).last_layer.parameters() if p.requires_grad]
    assert [tuple(p.shape) for p in both] == [(12, 1), (12, 4)]


def test_the_projector_begins_as_published():
    method = make(hidden=512, dim=256)
    linears = [layer for layer in method.projector if isinstance(layer, nn.Linear)]
    assert len(linears) == 3 and sum(isinstance(x, nn.GELU) for x in method.projector) == 2
    for layer in linears:
        assert not layer.bias.any()
    assert linears[1].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert any(isinstance(x, nn.BatchNorm1d) for x in make(norm=True).projector)


def test_the_prototypes_stay_in_the_first_epoch():
    """cancel_gradients_last_layer: no gradient, so that nothing decays either."""
    method = make(freeze=1)
    for number, frozen in ((0, True), (4, True), (5, False)):
        method.zero_grad()
        method.on_step_start(at(number))
        method(noise_groups(6, CROPS)).loss.backward()
        method.before_update(at(number))
        grads = [p.grad for p in method.last_layer.parameters() if p.requires_grad]
        assert all((grad is None) == frozen for grad in grads)
        assert all(p.grad is not None for p in method.projector.parameters())


def test_the_teachers_temperature_rises_as_published():
    settings = DINO.Settings(first_temperature=0.04, teacher_temperature=0.07, warmup_temperature=4)
    expected = np.concatenate((np.linspace(0.04, 0.07, 4), np.full(3, 0.07)))
    np.testing.assert_allclose([_teacher_temperature(settings, e) for e in range(7)], expected)
    assert _teacher_temperature(DINO.Settings(), 0) == 0.04


def test_the_teacher_is_evaluated_and_gets_no_gradient():
    method = make()
    method(noise_groups(6, CROPS)).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    assert method.encoder() is method.encoder("teacher") is method.teacher.module[0]
    assert method.encoder("student") is method.backbone
    assert method.networks("student")[1] is method.projector


def test_views_that_do_not_fit_are_errors():
    with pytest.raises(MillError, match="DINO takes 2 views of an image, but eval makes 1"):
        DINO.check(DINO.Settings(), presets.eval())
    DINO.check(DINO.Settings(), presets.dino(local_crops=0))
    DINO.check(DINO.Settings(), presets.swav())
