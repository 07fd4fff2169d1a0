"""Matching on a GPU: against float64, determinism, memory."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from helpers_matching import (
    CASES,
    TIED,
    Case,
    assert_gradient,
    assert_losses,
    assert_matches,
    by_reference,
    loss_and_gradient,
    tied,
    with_bad_value,
)

from patchmill.kernels import matching

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted"),
]

WITHIN = 5e-6  # tensor cores truncate where float32 rounds
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
GTSA = [
    Case((16, 16), (196, 196), 768, 16, 98),
    Case((64, 16), (36, 196), 768, 128, 18),
    Case((8, 8), (36, 36), 768, 8, 18),
]
OTHERS = [
    Case((3, 3), (197, 201), 384, 7, 100),
    Case((2, 2), (64, 1000), 100, 3, 64),
    Case((2, 2), (65, 129), 1, 3, 1),
    Case((1, 1), (3000, 2100), 48, 1, 1000),
    Case((5, 4), (1, 300), 4096, 9, 1),
]


def on_gpu(case: Case, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    return case.make(dtype, "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES + GTSA + OTHERS, ids=str)
def test_matches_losses_and_gradients(case: Case, dtype: torch.dtype):
    inputs = on_gpu(case, dtype)
    exact = (inputs[0].double(), inputs[1].double(), *inputs[2:])
    assert_matches(matching.best_matches(*inputs[:2], inputs[2:]), inputs, WITHIN)
    losses, gradient = loss_and_gradient(matching.correspond, case, inputs)
    plain, truth = (loss_and_gradient(by_reference, case, it) for it in (inputs, exact))
    assert_losses(losses, plain[0], truth[0], WITHIN)
    assert_gradient(gradient, plain[1], truth[1], case, inputs[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_go_to_the_lowest_index(dtype: torch.dtype):
    a, b = (it.to("cuda", dtype) for it in tied())
    for found, expected in zip(matching.best_matches(a, b), TIED.values(), strict=True):
        assert found[0].tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_inf_propagate(value: float, dtype: torch.dtype):
    a, b = (it.to(dtype) for it in with_bad_value(value))
    there = a.cuda().requires_grad_(), b.cuda()
    for mine, theirs in zip(
        matching.best_matches(*there), matching.best_matches(a, b), strict=True
    ):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=0, atol=0, equal_nan=True)
    losses = matching.correspond(*there, 2)
    assert losses[0].isfinite() and losses[1].isnan()
    losses.sum().backward()
    gradient: Any = there[0].grad
    assert gradient[0].isfinite().all() and gradient[1].isnan().any()


def test_missing_maps_are_not_read():
    a, b, a_index, b_index = on_gpu(GTSA[0], torch.bfloat16)
    a_index[3], b_index[5] = 1 << 40, -1
    a.requires_grad_()
    losses = matching.correspond(a, b, 98, (a_index, b_index))
    losses.nan_to_num().sum().backward()
    assert losses.isnan().nonzero()[:, 0].tolist() == [3, 5]


@pytest.mark.parametrize("case", GTSA, ids=str)
def test_deterministic(case: Case):
    inputs = on_gpu(case, torch.bfloat16)
    first = loss_and_gradient(matching.correspond, case, inputs)
    for _ in range(3):
        assert all(map(torch.equal, first, loss_and_gradient(matching.correspond, case, inputs)))


def test_memory_without_the_cosines():
    """512 pairs of 1024 tokens: cosines would be 2 GiB, partial maxima are 32 MiB, the rest 20."""
    case = Case((8, 8), (1024, 1024), 64, 512, 100)
    a, b, *pairs = on_gpu(case, torch.bfloat16)
    a.requires_grad_()
    matching.correspond(a, b, 100, tuple(pairs)).sum().backward()
    a.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    matching.correspond(a, b, 100, tuple(pairs)).sum().backward()
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= 64 * 2**20


def test_compiles_without_graph_breaks():
    case = CASES[0]
    inputs = on_gpu(case, torch.bfloat16)
    whole = torch.compile(matching.correspond, fullgraph=True)
    mine, theirs = (
        loss_and_gradient(function, case, inputs) for function in (whole, matching.correspond)
    )
    assert all(map(torch.equal, mine, theirs))


def test_no_synchronisation():
    case = GTSA[1]
    a, b, *pairs = on_gpu(case, torch.bfloat16)
    a.requires_grad_()
    matching.correspond(a, b, 18, tuple(pairs)).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        matching.correspond(a, b, 18, tuple(pairs)).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
