"""Aggregator: adding in parts equals one call to aggregate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_aggregate import FLOATS, NORMALISE, make
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels.aggregate import Aggregator, aggregate


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6), st.sampled_from(NORMALISE),
    st.sampled_from((*FLOATS, torch.float64)), st.integers(1, 11),
)  # fmt: skip
def test_parts_equal_one_call(counts: list[int], normalise: Any, dtype: torch.dtype, some: int):
    case = make(counts, 33, dtype, False, True)
    aggregator = Aggregator(len(counts), 33, normalise)
    for rows, index in zip(case.rows.split(some), case.index.split(some), strict=True):
        aggregator.add(rows, index)
    assert aggregator.counts.tolist() == counts
    whole = aggregate(case.rows, index=case.index, images=len(counts), normalise=normalise)
    torch.testing.assert_close(aggregator.mean(), whole.float(), rtol=1e-5, atol=1e-6)


def test_mean_after_every_patch():
    rows = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    aggregator = Aggregator(2, 16, "mean")
    for k in range(256):
        aggregator.add(rows[k : k + 1], torch.tensor([1]))
        so_far = torch.nn.functional.normalize(rows[: k + 1].double().mean(0), dim=0)
        torch.testing.assert_close(aggregator.mean()[1], so_far.float())
    assert not aggregator.mean()[0].any()


def test_many_small_parts_do_not_drift():
    aggregator = Aggregator(1, 1)
    for _ in range(2000):
        aggregator.add(torch.full((10, 1), 0.1), torch.zeros(10, dtype=torch.int64))
    assert aggregator.mean().item() == pytest.approx(0.1, rel=2.4e-7)  # error of one part's sum


def test_inputs_are_not_kept_alive():
    rows = torch.randn(4, 3, requires_grad=True)
    aggregator = Aggregator(1, 3)
    aggregator.add(rows, torch.zeros(4, dtype=torch.int64))
    assert not aggregator.mean().requires_grad
    before = aggregator.mean()
    with torch.no_grad():
        rows.zero_()
    aggregator.add(rows[:0], torch.empty(0, dtype=torch.int64))
    assert torch.equal(aggregator.mean(), before)


BAD_INPUTS = {
    "embeddings of 3 numbers": lambda it: it.add(torch.ones(2, 4), torch.tensor([0, 1])),
    "2 integers on cpu": lambda it: it.add(torch.ones(2, 3), torch.tensor([0])),
    "from 0 to 9": lambda it: it.add(torch.ones(2, 3), torch.tensor([9, 0])),
    "from -1 to 0": lambda it: it.add(torch.ones(2, 3), torch.tensor([-1, 0])),
    "one of none, each, mean": lambda it: Aggregator(2, 3, "sum"),
}


@pytest.mark.parametrize("message", BAD_INPUTS)
def test_bad_input_raises_and_changes_nothing(message: str):
    aggregator = Aggregator(2, 3)
    with pytest.raises(ValueError, match=message):
        BAD_INPUTS[message](aggregator)
    assert not aggregator.counts.any() and not aggregator.mean().any()
