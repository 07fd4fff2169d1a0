"""The Triton kernels, interpreted on CPU tensors.

Not in bfloat16, whose bits the interpreter's tl.dot treats as integers.
"""

from __future__ import annotations

from typing import Any

import helpers_interpreter
import pytest
import torch
from helpers_matching import (
    TIED,
    TIED_MATCHES,
    Case,
    assert_gradient,
    assert_losses,
    assert_matches,
    by_reference,
    loss_and_gradient,
    tied,
    with_bad_value,
)

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from patchmill.kernels.matching import cpu, gpu

DTYPES = (torch.float32, torch.float16)
PAIR = torch.zeros(1, dtype=torch.int64)
CASES = [
    Case((2, 1), (36, 196), 40, 3, 18),
    Case((1, 2), (131, 67), 20, 2, 41),  # two tiles of a
    Case((2, 1), (7, 300), 70, 2, 3),  # more than one SEARCH_BLOCK
    Case((3, 3), (5, 3), 3, 6, 2),
    Case((1, 1), (1, 1), 16, 1),
    Case((1, 2), (2, 3), 1100, 2, 2),  # more than one block of `inverse_norms`
]


def correspond(a: Any, b: Any, keep: int, pairs: Any) -> torch.Tensor:
    """Call the GPU code as the custom operator does."""
    return Interpreted.apply(a, b, keep, *pairs)  # type: ignore[no-any-return, no-untyped-call]


class Interpreted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Any, b: Any, keep: int, *pairs: torch.Tensor) -> torch.Tensor:
        losses, ctx.saved = gpu.correspond(a, b, *pairs, keep)
        ctx.args = a, b, *pairs
        ctx.keep = keep
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        weight = gradient * (-0.5 / ctx.keep)
        return gpu.correspond_backward(weight, *ctx.args, ctx.saved), None, None, None, None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_losses_and_gradients(case: Case, dtype: torch.dtype):
    inputs = case.make(dtype)
    exact = (inputs[0].double(), inputs[1].double(), *inputs[2:])
    assert_matches(gpu.best_matches(*inputs), inputs)
    losses, gradient = loss_and_gradient(correspond, case, inputs)
    plain, truth = (loss_and_gradient(by_reference, case, it) for it in (inputs, exact))
    assert_losses(losses, plain[0], truth[0])
    assert_gradient(gradient, plain[1], truth[1], case, inputs[0])


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_keeps_the_same_tokens_as_the_cpu(case: Case):
    inputs = case.make(torch.float32)
    (_, mine), (_, theirs) = (on.correspond(*inputs, case.keep) for on in (gpu, cpu))
    assert torch.equal(mine.match_a, theirs.match_a)
    assert torch.equal(mine.match_b, theirs.match_b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_go_to_the_lowest_index(dtype: torch.dtype):
    a, b = (it.to(dtype) for it in tied())
    for found, expected in zip(gpu.best_matches(a, b, PAIR, PAIR), TIED.values(), strict=True):
        assert found[0].tolist() == expected


@pytest.mark.parametrize("keep", TIED_MATCHES)
def test_ties_kept_by_lowest_index(keep: int):
    _, saved = gpu.correspond(*tied(), PAIR, PAIR, keep)
    found = saved.match_a[0].tolist(), saved.match_b[0].tolist()
    assert found == TIED_MATCHES[keep]


def test_ties_across_tiles():
    a, b = torch.eye(16)[torch.arange(140) % 2], torch.eye(16)[[5, 0, 1] * 30]
    similarity_a, index_a, similarity_b, index_b = gpu.best_matches(a[None], b[None], PAIR, PAIR)
    assert index_a[0].tolist() == [1, 2] * 70 and similarity_a.eq(1).all()
    assert index_b[0].tolist() == [0, 0, 1] * 30
    assert similarity_b[0].tolist() == [0, 1, 1] * 30


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_propagate(value: float, dtype: torch.dtype):
    a, b = (it.to(dtype) for it in with_bad_value(value))
    each = torch.arange(2)
    for mine, theirs in zip(
        gpu.best_matches(a, b, each, each), cpu.best_matches(a, b, each, each), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
    losses, gradient = loss_and_gradient(
        correspond, Case((2, 2), (4, 6), 4, 2, 2), (a, b, each, each)
    )
    assert losses[0].isfinite() and losses[1].isnan()
    assert gradient[0].isfinite().all() and gradient[1].isnan().any()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_missing_maps_are_not_read():
    a, b = tied()
    for lost in (-1, 1 << 40):
        for pairs in ((PAIR + lost, PAIR), (PAIR, PAIR + lost)):
            similarity_a, index_a, similarity_b, index_b = gpu.best_matches(a, b, *pairs)
            assert similarity_a.isnan().all() and similarity_b.isnan().all()
            assert not index_a.any() and not index_b.any()
            losses, saved = gpu.correspond(a, b, *pairs, 2)
            assert losses.isnan().all()
            gradient = gpu.correspond_backward(torch.ones(1), a, b, *pairs, saved)
            assert gradient.isnan().any() == (pairs[0] == 0).all()


def test_no_pairs():
    a, b = tied()
    none = PAIR[:0]
    assert [len(it) for it in gpu.best_matches(a, b, none, none)] == [0, 0, 0, 0]
    losses, saved = gpu.correspond(a, b, none, none, 1)
    assert losses.shape == (0,)
    assert not gpu.correspond_backward(losses, a, b, none, none, saved).any()
    nothing = gpu.correspond(a[:0], b[:0], none, none, 1)[1]
    assert gpu.correspond_backward(losses, a[:0], b[:0], none, none, nothing).shape == (0, 4, 4)
