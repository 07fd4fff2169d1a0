"""Means of losses between logged steps, and steps whose loss is not settled."""

from __future__ import annotations

import pytest
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.runtime.metrics import LossMeter

IDS = torch.tensor([7, 8])


def add(meter: LossMeter, step: int, micro_batches, settled=(None, None)) -> None:
    """One step; a micro-batch is its loss and its spread."""
    for (loss, spread), full in zip(micro_batches, settled, strict=False):
        values = {"loss": torch.tensor(loss), "spread": torch.tensor(spread)}
        meter.add(IDS, values, None if full is None else torch.tensor(full))
    meter.end_step(step)


def test_values_are_means_over_micro_batches_and_steps():
    meter = LossMeter(lambda: "")
    add(meter, 1, [(1.0, 0.5), (2.0, 0.7)])
    add(meter, 2, [(4.0, 0.1), (5.0, 0.3)])
    assert meter.take() == pytest.approx({"loss": 3.0, "spread": 0.4})
    add(meter, 3, [(8.0, 1.0)])
    assert meter.take() == {"loss": 8.0, "spread": 1.0}


def test_unsettled_losses_are_excluded_but_their_metrics_are_not():
    meter = LossMeter(lambda: "")
    add(meter, 1, [(100.0, 1.0), (100.0, 1.0)], (False, False))
    assert list(meter.take().items()) == [("loss", None), ("spread", 1.0)]
    add(meter, 2, [(100.0, 2.0), (6.0, 2.0)], (False, True))
    add(meter, 3, [(4.0, 4.0), (6.0, 4.0)], (True, True))
    add(meter, 4, [(8.0, 6.0), (8.0, 6.0)], (True, True))
    assert meter.take() == {"loss": 6.5, "spread": 4.0}


def test_an_unsettled_loss_that_is_not_finite_is_an_error_all_the_same():
    meter = LossMeter(lambda: "the beginning")
    add(meter, 5, [(float("inf"), 1.0)], (False,))
    with pytest.raises(MillError, match=r"step 5 \(loss inf, spread 1\), with samples 7, 8"):
        meter.check()
