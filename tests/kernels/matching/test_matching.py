"""Matching on the CPU: public functions against the reference in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers_matching import (
    CASES,
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
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels import matching
from patchmill.kernels.matching import cpu, operators

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    maps = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    tokens = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    keep = draw(st.integers(1, min(tokens)))
    pairs, seed = draw(st.integers(1, 12)), draw(st.integers(0, 999))
    return Case(maps, tokens, draw(st.integers(2, 40)), pairs, keep, seed)


# ------------------------------------------------------------------------------------------ results


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches(case: Case, dtype: torch.dtype):
    a, b, *pairs = case.make(dtype)
    assert_matches(matching.best_matches(a, b, tuple(pairs)), (a, b, *pairs))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_losses_and_gradients(case: Case, dtype: torch.dtype):
    inputs = case.make(dtype)
    check(case, inputs)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cases())
def test_any_sizes(case: Case):
    inputs = case.make(torch.float32)
    assert_matches(matching.best_matches(*inputs[:2], inputs[2:]), inputs)
    check(case, inputs)


def check(case: Case, inputs: tuple[torch.Tensor, ...]) -> None:
    exact = (inputs[0].double(), inputs[1].double(), *inputs[2:])
    losses, gradient = loss_and_gradient(matching.correspond, case, inputs)
    plain = loss_and_gradient(by_reference, case, inputs)
    truth = loss_and_gradient(by_reference, case, exact)
    assert_losses(losses, plain[0], truth[0])
    assert_gradient(gradient, plain[1], truth[1], case, inputs[0])


def test_float64_runs_the_reference():
    case = CASES[2]
    inputs = case.make(torch.float64)
    for ours, theirs in zip(
        loss_and_gradient(matching.correspond, case, inputs),
        loss_and_gradient(by_reference, case, inputs),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    assert matching.best_matches(*inputs[:2], inputs[2:]).similarity_a.dtype == torch.float64


def test_without_pairs_maps_are_matched_in_order():
    a, b, *_ = Case((3, 3), (6, 9), 5, 1).make(torch.float32)
    every = torch.arange(3)
    for ours, theirs in zip(
        matching.best_matches(a, b), matching.best_matches(a, b, (every, every)), strict=True
    ):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(matching.correspond(a, b, 2), by_reference(a, b, 2, (every, every)))


def test_the_pairs_of_a_gtsa_batch():
    """18 ordered pairs per image: 2 of global views with each other, 16 with local ones."""
    images, keep = 2, 4
    student, teacher, *_ = Case((8 * images, 2 * images), (9, 16), 12, 1).make(torch.float32)
    image = torch.arange(images)[:, None, None]
    student_index = (image * 8 + torch.arange(8)).expand(images, 2, 8).flatten()
    teacher_index = (image * 2 + torch.arange(2)[:, None]).expand(images, 2, 8).flatten()
    found = matching.correspond(student, teacher, keep, (student_index, teacher_index))
    one_by_one = [
        by_reference(student[i][None], teacher[j][None], keep, (torch.zeros(1).long(),) * 2)
        for i, j in zip(student_index, teacher_index, strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(one_by_one))


# --------------------------------------------------------------------------------------- edge cases


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_go_to_the_lowest_index(dtype: torch.dtype):
    a, b = (it.to(dtype) for it in tied())
    for found, expected in zip(matching.best_matches(a, b), TIED.values(), strict=True):
        assert found[0].tolist() == expected


@pytest.mark.parametrize("keep", TIED_MATCHES)
def test_ties_kept_by_lowest_index(keep: int):
    a, b = tied()
    pair = torch.zeros(1, dtype=torch.int64)
    _, match_a, _, match_b, *_ = operators.correspond(a, b, keep, pair, pair)
    assert (match_a[0].tolist(), match_b[0].tolist()) == TIED_MATCHES[keep]


def test_ties_across_blocks(monkeypatch: pytest.MonkeyPatch):
    """For any number of blocks of products, lanes and blocks agree on the lowest index."""
    monkeypatch.setattr(cpu, "ROWS", 3)
    monkeypatch.setattr(cpu, "BLOCK_ELEMENTS", 3 * 70)
    a, b = torch.eye(4)[[3, 0, 1, 0, 1, 0, 2]], torch.eye(4)[torch.arange(200) % 2]
    found = matching.best_matches(a[None], b[None])
    assert found.index_a[0].tolist() == [0, 0, 1, 0, 1, 0, 0]
    assert found.index_b[0].tolist() == [1, 2] * 100


def test_any_two_tied_tokens():
    other = torch.eye(1, 4)
    for places in ([10, 67], [3, 67], [67, 68], [0, 129], [64, 128]):
        tokens = torch.zeros(130, 4)
        tokens[places] = other
        found = (
            matching.best_matches(tokens[None], other[None]),
            matching.best_matches(other[None], tokens[None]),
        )
        assert found[0].index_b.item() == found[1].index_a.item() == places[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_propagate(value: float, dtype: torch.dtype):
    a, b = (it.to(dtype) for it in with_bad_value(value))
    found = matching.best_matches(a, b)
    for ours, clean in zip(found, TIED.values(), strict=True):
        assert ours[0].tolist() == clean
    assert found.similarity_a[1].isnan().all() and found.similarity_b[1].isnan().all()
    assert found.index_a[1].tolist() == [2, 0, 2, 2]
    assert found.index_b[1].tolist() == [1, 1, 0, 1, 1, 1]
    a.requires_grad_()
    losses = matching.correspond(a, b, 2)
    assert losses[0].isfinite() and losses[1].isnan()
    losses.sum().backward()
    assert a.grad is not None and a.grad[0].isfinite().all() and a.grad[1].isnan().any()


def test_a_zero_token_has_no_gradient():
    a, b = tied()
    a.requires_grad_()
    loss = matching.correspond(a, b, 4)
    assert loss.item() == pytest.approx(-(3 / 4 + 1) / 2)
    loss.sum().backward()
    assert a.grad is not None and a.grad.isfinite().all()
    assert a.grad[0, 3].tolist() == [0, 0, 0, 0]


def test_no_pairs():
    a, b = (it.requires_grad_() for it in tied())
    none = torch.empty(0, dtype=torch.int64)
    assert [len(it) for it in matching.best_matches(a, b, (none, none))] == [0, 0, 0, 0]
    losses = matching.correspond(a, b, 1, (none, none))
    losses.sum().backward()
    assert losses.shape == (0,) and a.grad is not None and not a.grad.any()
    assert matching.correspond(a[:0], b[:0], 1).shape == (0,)


def test_only_the_student_gets_a_gradient():
    a, b = (it.requires_grad_() for it in tied())
    matching.correspond(a, b, 1).sum().backward()
    assert a.grad is not None and b.grad is None
    assert not matching.correspond(a.detach(), b, 1).requires_grad
    assert not any(it.requires_grad for it in matching.best_matches(a, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_strides(dtype: torch.dtype):
    case = CASES[2]
    a, b, *pairs = case.make(dtype)
    planes = a.mT.contiguous().mT, b.repeat(1, 2, 1)[:, ::2]
    assert not planes[0].is_contiguous() and not planes[1].is_contiguous()
    for ours, theirs in zip(
        loss_and_gradient(matching.correspond, case, (*planes, *pairs)),
        loss_and_gradient(
            matching.correspond, case, (planes[0].contiguous(), planes[1].contiguous(), *pairs)
        ),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


# -------------------------------------------------------------------------------- pairs, and memory


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=40), st.integers(1, 5)
)  # fmt: skip
def test_pair_runs_keep_the_order(pairs: list[tuple[int, int]], most: int):
    sides = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    assert list(unrolled(sides, most)) == pairs


@pytest.mark.parametrize(
    "pairs, most, lengths",
    [
        ([(i, 0) for i in range(8)] + [(i, 1) for i in range(8)], 16, [8, 8]),
        ([(8 * i + 3, 2 * i + 1) for i in range(40)], 16, [16, 16, 8]),
        ([(0, 1), (1, 0), (2, 3), (3, 2)], 16, [1, 2, 1]),
    ],
)
def test_even_pairs_form_runs(pairs: list[tuple[int, int]], most: int, lengths: list[int]):
    a_index, b_index = torch.tensor(pairs).unbind(1)
    found = [run.pairs.stop - run.pairs.start for run in cpu.pair_runs(a_index, b_index, most)]
    assert found == lengths


def unrolled(sides: Any, most: int) -> Iterator[tuple[int, int]]:
    maps = torch.arange(5)[:, None]
    done = 0
    for run in cpu.pair_runs(*sides, most):
        assert run.pairs.start == done and 1 <= run.pairs.stop - done <= most
        done = run.pairs.stop
        a_index, b_index = run.of_a(maps)[:, 0], run.of_b(maps)[:, 0]
        yield from zip(a_index.int().tolist(), b_index.int().tolist(), strict=True)
    assert done == len(sides[0])


def test_products_are_computed_block_by_block(monkeypatch: pytest.MonkeyPatch):
    sizes, multiply = [], torch.bmm

    def watched(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        sizes.append(out.numel())
        return multiply(a, b, out=out)

    monkeypatch.setattr(torch, "bmm", watched)
    for tokens in ((1100, 1300), (1, 600_000), (50_000, 1), (10, 10)):
        a, b, *pairs = Case((2, 2), tokens, 2, 5).make(torch.float32)
        matching.best_matches(a, b, tuple(pairs))
    assert max(sizes) <= cpu.BLOCK_ELEMENTS and sum(sizes) == 5 * (1100 * 1300 + 650_000 + 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_threads(dtype: torch.dtype):
    case = CASES[0]
    student, teacher, *pairs = case.make(dtype)
    saved = operators.correspond(student, teacher, case.keep, *pairs)[1:]
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            args = (case.weights(), student, teacher, case.keep, *pairs, list(saved))
            found.append(operators.correspond_backward(*args))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


# ----------------------------------------------------------------------- compilation and bad input


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_pass_opcheck(dtype: torch.dtype):
    a, b, *pairs = CASES[2].make(dtype)
    torch.library.opcheck(operators.best_matches, (a, b, *pairs))
    torch.library.opcheck(operators.correspond, (a.requires_grad_(), b, 2, *pairs))


@pytest.mark.parametrize("paired", [True, False])
def test_compiles_without_graph_breaks(paired: bool):
    case = Case((3, 3), (7, 5), 6, 3, 2)
    a, b, *drawn = case.make(torch.float32)
    pairs = tuple(drawn) if paired else None

    def loss(student: torch.Tensor, teacher: torch.Tensor, pairs: Any) -> torch.Tensor:
        matches = matching.best_matches(student, teacher, pairs)
        return matching.correspond(student * 2, teacher, 2, pairs).sum() + matches[0].mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = []
    for function in (loss, compiled):
        student = a.clone().requires_grad_()
        value = function(student, b, pairs)
        value.backward()
        found.append((value.detach(), student.grad))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_autocast_has_no_effect():
    case = CASES[2]
    inputs = case.make(torch.float32)
    plain = loss_and_gradient(matching.correspond, case, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss_and_gradient(matching.correspond, case, inputs)
    assert torch.equal(found[0], plain[0]) and torch.equal(found[1], plain[1])


MAPS = torch.ones(2, 3, 4)
PAIR = torch.zeros(1, dtype=torch.int64)
BAD_INPUTS: dict[str, tuple[Any, ...]] = {
    "channels last": (MAPS, torch.ones(2, 3, 5)),
    "flatten heights": (torch.ones(2, 3, 4, 4), MAPS),
    "no empty dimension": (torch.ones(2, 0, 4), MAPS),
    "as many maps on both sides": (MAPS, torch.ones(3, 3, 4)),
    "of one type on one device": (MAPS, MAPS.half()),
    "takes float32, float16": (MAPS.int(), MAPS.int()),
    "two int64 tensors": (MAPS, MAPS, (PAIR, PAIR.int())),
    r"int64 \(1,\) and torch.int64 \(2,\)": (MAPS, MAPS, (PAIR, torch.tensor([0, 1]))),
    "on the device of the maps": (MAPS, MAPS, (PAIR, PAIR.to("meta"))),
    "cannot pair maps of an empty set": (MAPS[:0], MAPS, (PAIR, PAIR)),
    "first of each pair must be the index of a map, 0 to 1, not 2 to 2": (
        MAPS, MAPS, (PAIR + 2, PAIR),
    ),
    "second of each pair must be": (MAPS, MAPS, (PAIR, PAIR - 1)),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD_INPUTS)
def test_bad_input_raises(message: str):
    a, b, *pairs = BAD_INPUTS[message]
    with pytest.raises(ValueError, match=message):
        matching.best_matches(a, b, *pairs)
    with pytest.raises(ValueError, match=message):
        matching.correspond(a, b, 1, *pairs)


@pytest.mark.parametrize("keep", [0, 4])
def test_cannot_keep_more_tokens_than_there_are(keep: int):
    with pytest.raises(ValueError, match=f"keep {keep} of 3 tokens .* 5 of the teacher: keep 1 to"):
        matching.correspond(MAPS, torch.ones(2, 5, 4), keep)
