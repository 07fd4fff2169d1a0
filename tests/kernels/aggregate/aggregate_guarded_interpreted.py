"""The Triton kernels between protected pages, on random shapes, interpreted."""

from __future__ import annotations

from typing import Any
from unittest import mock

import helpers_interpreter
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from helpers_aggregate import make
from helpers_guarded_tensors import ENDS, GuardedMemory, random_cases, trouble

from patchmill.kernels.aggregate import gpu, reference

counts = st.lists(st.integers(0, 40), min_size=1, max_size=4)
# Each long row is a tile.
widths = st.one_of(st.integers(1, 40), st.sampled_from([64, 2049]))


@random_cases(6)
@given(
    counts, widths, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 3)
)
def means_and_gradients(
    counts: list[int], d: int, weighted: bool, mixed: bool, unit_rows: bool, unit_mean: bool,
    splits: int,
):  # fmt: skip
    case = make(counts, d, torch.float32, weighted, mixed)
    order = case.index.sort(stable=True).indices if mixed else None
    offsets = torch.tensor([0, *counts]).cumsum(0)
    rows = case.rows.clone().requires_grad_()
    weights = None if case.weights is None else case.weights.clone().requires_grad_()
    whose = case.index, case.images
    each = "each" if unit_rows else "none"
    unscaled = reference.aggregate(rows, *whose, each, weights)
    right = reference.unit_rows(unscaled) if unit_mean else unscaled
    ones = torch.ones(len(rows)) if weights is None else weights.detach()
    totals = torch.zeros(case.images).index_add(0, case.index, ones)
    lengths = unscaled.norm(dim=1) if unit_mean else torch.ones(case.images)
    # Gradients w.r.t. sums are those w.r.t. means divided by the totals.
    grad_sums = torch.where(totals > 0, 1 / totals, 0)[:, None] * case.gradient
    leaves = [rows] if weights is None else [rows, weights]
    by_leaves = torch.autograd.grad(unscaled, leaves, case.gradient)
    dots = (grad_sums * unscaled.detach()).sum(1)

    for at_end in ENDS:
        with (
            GuardedMemory(at_end) as memory,
            mock.patch.object(gpu, "split_count", lambda *_: splits),
        ):
            tables = memory.given(case.rows, case.weights, offsets, order)
            found = gpu.mean(*tables, unit_rows, unit_mean)
            grads = gpu.mean_backward(
                *memory.given(grad_sums, dots), *tables, len(rows), unit_rows, True, weighted
            )
        for mine, its in zip(found, (right, totals, lengths), strict=True):
            torch.testing.assert_close(mine, its.detach(), rtol=1e-4, atol=1e-5)
        for mine, its in zip(grads, by_leaves, strict=False):
            torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5 * d)


@pytest.mark.parametrize("check", [means_and_gradients])
def test_no_access_is_out_of_bounds_and_results_are_fully_written(check: Any):
    problem = trouble(check)
    assert problem is None, problem
