"""Schedules against the papers' code."""

from __future__ import annotations

import math

import pytest
from helpers_optim import like
from hypothesis import given
from hypothesis import strategies as st

from patchmill.training.optim import schedules

EPOCH = 100  # steps


def rates(paper: str, batch: int, step: int, epochs: int, **changes):
    return schedules.rates_at(like(paper, **changes), batch, step, epochs * EPOCH, EPOCH)


def test_moco_v1_drops_at_its_milestones():
    found = [rates("moco_v1", 256, epoch * EPOCH, 200).lr for epoch in (0, 119, 120, 159, 160, 199)]
    assert found == pytest.approx([0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003])


@given(st.integers(0, 200 * EPOCH - 1))
def test_moco_v2_is_a_cosine_of_the_epoch(step: int):
    expected = 0.03 * 0.5 * (1 + math.cos(math.pi * (step // EPOCH) / 200))
    assert rates("moco_v2", 256, step, 200).lr == pytest.approx(expected)


@given(st.integers(0, 100 * EPOCH - 1), st.sampled_from([256, 512, 2048]))
def test_vicreg_is_its_authors_function(step: int, batch: int):
    """adjust_learning_rate of facebookresearch/vicreg, main_vicreg.py."""
    max_steps, warmup_steps, base = 100 * EPOCH, 10 * EPOCH, 0.2 * batch / 256
    if step < warmup_steps:
        expected = base * step / warmup_steps
    else:
        q = 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (max_steps - warmup_steps)))
        expected = base * q + base * 0.001 * (1 - q)
    assert rates("vicreg", batch, step, 100).lr == pytest.approx(expected)


def test_emp_ssl_is_a_cosine_to_zero_by_step():
    steps = 2 * EPOCH
    found = [rates("emp_ssl", 100, step, 2).lr for step in range(steps)]
    expected = [0.15 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    assert found == pytest.approx(expected)


def test_weight_decay_follows_its_own_cosine():
    decay = [rates("gtsa", 512, step, 100).weight_decay for step in (0, 50 * EPOCH, 100 * EPOCH)]
    assert decay == pytest.approx([0.04, 0.22, 0.4])
    assert rates("gtsa", 512, 10 * EPOCH, 100).lr == pytest.approx(1e-3)
    assert rates("moco_v2", 256, 1234, 200).weight_decay == 1e-4


@given(st.integers(1, 400), st.floats(0, 20))
def test_rates_stay_between_their_ends(epochs: int, warmup: float):
    for step in range(0, epochs * EPOCH, max(1, epochs * EPOCH // 50)):
        lr = rates("vicreg", 256, step, epochs, warmup=warmup).lr
        assert 0 <= lr <= 0.2 * (1 + 1e-9)
