"""Means that grow: what is added in parts equals one call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_patches import FLOATS, NORMALISE, make
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels import patches


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6), st.sampled_from(NORMALISE),
    st.sampled_from((*FLOATS, torch.float64)), st.integers(1, 11),
)  # fmt: skip
def test_parts_equal_the_whole(counts: list[int], normalise: Any, dtype: torch.dtype, some: int):
    case = make(counts, 33, dtype, False, True)
    grows = patches.Aggregator(len(counts), 33, normalise)
    for rows, index in zip(case.rows.split(some), case.index.split(some), strict=True):
        grows.add(rows, index)
    assert grows.counts.tolist() == counts
    whole = patches.aggregate(case.rows, index=case.index, images=len(counts), normalise=normalise)
    torch.testing.assert_close(grows.mean(), whole.float(), rtol=1e-5, atol=1e-6)


def test_the_mean_after_every_patch_is_that_of_those_so_far():
    rows = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    grows = patches.Aggregator(2, 16, "mean")
    for k in range(256):
        grows.add(rows[k : k + 1], torch.tensor([1]))
        so_far = torch.nn.functional.normalize(rows[: k + 1].double().mean(0), dim=0)
        torch.testing.assert_close(grows.mean()[1], so_far.float())
    assert not grows.mean()[0].any()


def test_many_small_parts_do_not_drift():
    grows = patches.Aggregator(1, 1)
    for _ in range(2000):
        grows.add(torch.full((10, 1), 0.1), torch.zeros(10, dtype=torch.int64))
    assert grows.mean().item() == pytest.approx(0.1, rel=2.4e-7)  # as far off as one part's sum


def test_nothing_is_kept_of_what_was_added():
    rows = torch.randn(4, 3, requires_grad=True)
    grows = patches.Aggregator(1, 3)
    grows.add(rows, torch.zeros(4, dtype=torch.int64))
    assert not grows.mean().requires_grad
    before = grows.mean()
    with torch.no_grad():
        rows.zero_()
    grows.add(rows[:0], torch.empty(0, dtype=torch.int64))
    assert torch.equal(grows.mean(), before)


WRONG = {
    "embeddings of 3 numbers": lambda it: it.add(torch.ones(2, 4), torch.tensor([0, 1])),
    "2 whole numbers on cpu": lambda it: it.add(torch.ones(2, 3), torch.tensor([0])),
    "from 0 to 9": lambda it: it.add(torch.ones(2, 3), torch.tensor([9, 0])),
    "from -1 to 0": lambda it: it.add(torch.ones(2, 3), torch.tensor([-1, 0])),
    "one of none, each, mean": lambda it: patches.Aggregator(2, 3, "sum"),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_is_said_and_changes_nothing(said: str):
    grows = patches.Aggregator(2, 3)
    with pytest.raises(ValueError, match=said):
        WRONG[said](grows)
    assert not grows.counts.any() and not grows.mean().any()
