"""Means of embeddings on the CPU, through the public function, against the float64 reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_aggregate import FLOATS, NORMALISE, Case, assert_right, make, results
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels.aggregate import aggregate, operators, segments


def by_public_function(
    case: Case, normalise: Any, counts: list[int] | None = None
) -> list[torch.Tensor]:
    whose = {"index": case.index, "images": case.images} if counts is None else {"counts": counts}
    return results(
        lambda rows, weights: aggregate(rows, **whose, normalise=normalise, weights=weights),
        case,
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("d", [1, 64, 97, 4096])
def test_values_and_all_gradients(d: int, weighted: bool, normalise: str, dtype: torch.dtype):
    counts = [3, 0, 16, 1, 7, 0]
    case = make(counts, d, dtype, weighted, mixed=False, seed=d)
    lined_up, found = (
        by_public_function(case, normalise, counts),
        by_public_function(case, normalise),
    )
    assert_right(found, case, normalise)
    assert lined_up[0].dtype == torch.float32 and lined_up[1].dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(lined_up, found, strict=True))
    assert_right(
        by_public_function(mixed := make(counts, d, dtype, weighted, True, d), normalise),
        mixed,
        normalise,
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(1, 70),
    st.sampled_from(FLOATS), st.booleans(), st.booleans(), st.sampled_from(NORMALISE),
)  # fmt: skip
def test_any_groups(
    counts: list[int], d: int, dtype: torch.dtype, weighted: bool, mixed: bool, normalise: str
):
    case = make(counts, d, dtype, weighted, mixed)
    assert_right(by_public_function(case, normalise), case, normalise)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("normalise", NORMALISE)
def test_empty_images_and_zero_rows(normalise: Any, dtype: torch.dtype):
    rows = torch.zeros(4, 5, dtype=dtype)
    rows[3] = 2
    rows, weights = rows.requires_grad_(), torch.tensor([1.0, 2, 0, 0], requires_grad=True)
    means = aggregate(rows, [2, 0, 1, 1], normalise=normalise, weights=weights)
    means.sum().backward()
    assert not means.any()
    assert rows.grad.isfinite().all() and weights.grad.isfinite().all()
    assert not rows.grad[2:].any() and not weights.grad[2:].any()
    assert rows.grad[:2].any() == (normalise == "none")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("normalise", NORMALISE)
def test_nan_and_inf_stay_in_their_image(normalise: Any, dtype: torch.dtype, bad: float):
    rows = torch.ones(6, 70, dtype=dtype)
    rows[3, 66] = bad
    rows.requires_grad_()
    means = aggregate(rows, [2, 2, 2], normalise=normalise)
    assert means[[0, 2]].isfinite().all() and not means[1, 66].isfinite()
    means.sum().backward()
    assert rows.grad[[0, 1, 4, 5]].isfinite().all()


def test_any_strides_and_index_types():
    case = make([3, 4], 10, torch.float32, False, True)
    expected = aggregate(case.rows, index=case.index)
    across = case.rows.T.contiguous().T
    apart = torch.stack([case.rows, case.rows], 1)[:, 1]
    short = case.index.int().repeat_interleave(2)[::2]
    assert torch.equal(aggregate(across, index=short), expected)
    assert torch.equal(aggregate(apart, index=case.index, images=2), expected)
    wider = aggregate(case.rows, index=case.index, images=4)
    assert torch.equal(wider, torch.cat([expected, torch.zeros(2, 10)]))
    (grad,) = torch.autograd.grad(aggregate(across.requires_grad_(), index=short).sum(), across)
    torch.testing.assert_close(grad.sum(), torch.tensor(20.0))


def test_no_rows():
    rows = torch.empty(0, 8, requires_grad=True)
    assert aggregate(rows, []).shape == (0, 8)
    assert aggregate(rows, index=torch.empty(0, dtype=torch.int64)).shape == (0, 8)
    means = aggregate(rows, [0, 0])
    means.sum().backward()
    assert means.tolist() == [[0] * 8] * 2 and rows.grad.shape == (0, 8)


def test_any_number_of_threads():
    case = make([700, 3, 0, 411, 900], 256, torch.float32, True, True)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append([part for kind in NORMALISE for part in by_public_function(case, kind)])
    finally:
        torch.set_num_threads(threads)
    for one, two, three in zip(*found, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_weights_need_not_share_the_embeddings_type():
    case = make([3, 4], 10, torch.bfloat16, True, False)
    weights = case.weights.double().requires_grad_()
    means = aggregate(case.rows, [3, 4], weights=weights)
    expected = aggregate(case.rows, [3, 4], weights=case.weights)
    assert torch.equal(means, expected)
    (grad,) = torch.autograd.grad(means.square().sum(), weights)
    assert grad.dtype == torch.float64


def test_embeddings_are_saved_only_if_needed():
    rows = make([3, 4], 10, torch.float32, True, False).rows.requires_grad_()
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda it: kept.append(it.shape) or it, lambda it: it
    ):
        aggregate(rows, [3, 4])
        assert (7, 10) not in kept and (0, 10) in kept
        aggregate(rows, [3, 4], normalise="each")
        assert (7, 10) in kept


def test_a_gradient_by_weights_alone():
    case = make([3, 4], 10, torch.float32, True, False)
    both, weights = by_public_function(case, "each")[2], case.weights.requires_grad_()
    means = aggregate(case.rows.detach(), [3, 4], normalise="each", weights=weights)
    assert torch.equal(torch.autograd.grad(means, weights, case.gradient)[0], both)


ROWS = torch.zeros(5, 3)
INDEX = torch.zeros(5, dtype=torch.int64)
BAD_INPUTS = {
    "sum to 6 .* there are 5": lambda: aggregate(ROWS, [2, 4]),
    "sum to 5 .the least is -1. but there are 5": lambda: aggregate(ROWS, [6, -1]),
    "from 0 to 0, but there are 0": lambda: aggregate(
        ROWS, index=INDEX, images=0
    ),
    "from -2 to 2": lambda: aggregate(ROWS, index=torch.arange(-2, 3), images=3),
    "from 7 to 7": lambda: aggregate(ROWS, index=INDEX + 7, images=7),
    "either counts or an index": lambda: aggregate(ROWS),
    "exactly one of them": lambda: aggregate(ROWS, [5], INDEX),
    "integers .B.": lambda: aggregate(ROWS, torch.ones(5)),
    "2 counts for 3 images": lambda: aggregate(ROWS, [2, 3], images=3),
    "5 integers on cpu": lambda: aggregate(ROWS, index=INDEX[:4]),
    "rows .P, d.": lambda: aggregate(ROWS[0], [3]),
    "rows .P, d. of": lambda: aggregate(ROWS.int(), [5]),
    "none, each, mean": lambda: aggregate(ROWS, [5], normalise="max"),  # type: ignore[arg-type]
    "weights as 5 floats": lambda: aggregate(ROWS, [5], weights=torch.ones(4)),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD_INPUTS)
def test_bad_input_raises(message: str):
    with pytest.raises(ValueError, match=message):
        BAD_INPUTS[message]()


@pytest.mark.parametrize("weighted", [False, True])
def test_operators_pass_opcheck(weighted: bool):
    case = make([3, 0, 4], 5, torch.float32, weighted, True)
    offsets, order = segments.sort_by_index(case.index, 3)
    rows = case.rows.requires_grad_()
    weights = case.weights.requires_grad_() if weighted else None
    torch.library.opcheck(operators.mean, (rows, weights, offsets, order, True, False))
    torch.library.opcheck(segments.sort_by_index, (case.index, 3))
    torch.library.opcheck(segments.offsets_of_counts, (torch.tensor([3, 4]), rows.detach()))
    grad, grad_dot_mean = torch.randn(3, 5), torch.randn(3)
    kept = (rows.detach(), None if weights is None else weights.detach())
    torch.library.opcheck(
        operators.mean_backward,
        (grad, grad_dot_mean, *kept, offsets, order, 7, True, True, weighted),
    )


@pytest.mark.parametrize("normalise", NORMALISE)
def test_compile_and_autocast(normalise: Any):
    case = make([3, 0, 4], 5, torch.float32, True, True)
    network = torch.nn.Linear(5, 6)
    counts = torch.bincount(case.index)

    def loss(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = network(rows)
            one = aggregate(
                embeddings, index=case.index, images=3, normalise=normalise, weights=weights
            )
            two = aggregate(embeddings, counts, normalise=normalise)
        assert embeddings.dtype == torch.bfloat16 and one.dtype == two.dtype == torch.float32
        return (one - 2 * two).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    leaves = [case.rows.requires_grad_(), case.weights.requires_grad_()]
    for ours, theirs in zip(
        torch.autograd.grad(compiled(*leaves), leaves),
        torch.autograd.grad(loss(*leaves), leaves), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(ours, theirs)
