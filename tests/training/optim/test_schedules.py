"""Schedules against the papers' code."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers_optim import like
from hypothesis import given
from hypothesis import strategies as st

from patchmill.training.config import compose
from patchmill.training.config.settings import Optim
from patchmill.training.optim import schedules

EPOCH = 100  # steps
TCR = compose.compose(["method=tcr", "scale=cifar", "size=32"]).optim


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


@given(st.integers(0, 10 * EPOCH - 1))
def test_tcr_warms_up_by_a_tenth_in_each_epoch(step: int):
    """warmup_lr of NMCE, func.py, on the composed settings."""
    expected = TCR.lr * min(1.0, (step // EPOCH + 1) / 10)
    found = schedules.rates_at(TCR, 1024, step, 600 * EPOCH, EPOCH).lr
    assert found == pytest.approx(expected)


def test_tcr_holds_its_rate_for_an_epoch_and_falls_to_zero():
    steps = 600 * EPOCH
    found = [schedules.rates_at(TCR, 1024, step, steps, EPOCH).lr for step in range(steps)]
    by_epoch = [set(found[at : at + EPOCH]) for at in range(0, steps, EPOCH)]
    assert all(len(values) == 1 for values in by_epoch)
    assert found[10 * EPOCH] == pytest.approx(TCR.lr) and 0 < found[-1] < 1e-4 * TCR.lr


@pytest.mark.parametrize("warmup", [0.5, 1.0, 2.0])
def test_a_short_warm_up_by_the_epoch_reaches_the_peak(warmup: float):
    given = replace(TCR, warmup=warmup)
    assert schedules.rates_at(given, 256, 0, 9 * EPOCH, EPOCH).lr == pytest.approx(0.1 * TCR.lr)
    after = schedules.rates_at(given, 256, round(warmup * EPOCH), 9 * EPOCH, EPOCH).lr
    assert after == pytest.approx(TCR.lr)


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


def test_a_warm_up_that_ends_at_its_peak_is_dinos():
    """cosine_scheduler of facebookresearch/dino, utils.py."""
    base, final, epochs, per_epoch, warmup = 1e-3, 1e-6, 5, 7, 2
    rising = np.linspace(0, base, warmup * per_epoch)
    steps = np.arange(epochs * per_epoch - warmup * per_epoch)
    falling = final + 0.5 * (base - final) * (1 + np.cos(np.pi * steps / len(steps)))
    settings = Optim(lr=base, warmup=warmup, warmup_end=True, min_lr=final)
    mine = [schedules.rates_at(settings, 64, step, 35, per_epoch).lr for step in range(35)]
    np.testing.assert_allclose(mine, np.concatenate((rising, falling)), rtol=1e-12)


@given(st.integers(0, 999), st.sampled_from([0, 1, 100]))
def test_poly_falls_to_zero_over_all_steps_under_its_warm_up(step: int, warmup: int):
    """PolyLrUpdaterHook with a linear warm-up of mmcv: the warm-up is a factor of the fall."""
    settings = Optim(lr=0.5, schedule="poly", warmup=warmup, warmup_start=1e-3)
    regular = 0.5 * (1 - step / 1000)
    missing = (1 - step / warmup) * (1 - 1e-3) if step < warmup else 0.0
    found = schedules.rates_at(settings, 256, step, 1000, 1).lr
    assert found == pytest.approx(regular * (1 - missing))
