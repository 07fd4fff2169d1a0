"""The GPU's kernels on CPU tensors, by Triton's interpreter, against the CPU's.

Not in bfloat16: the interpreter takes its bits for whole numbers when it multiplies matrices.
"""

from __future__ import annotations

from typing import Any

import helpers_interpreter
import pytest
import torch
from helpers_contrast import arguments, unit

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from patchmill.kernels.contrast import cpu, gpu
from patchmill.kernels.contrast.pairing import BATCH, QUEUE, VIEWS, Pairing

TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3}
# Pairing and keys of the queue; blocks are of 16 x 16 logits.
CASES: dict[str, tuple[Pairing, int]] = {
    "queue": (Pairing(QUEUE, 1, 18, 18, 0), 53),
    "queue, one query, one key": (Pairing(QUEUE, 1, 1, 1, 0), 1),
    "batch": (Pairing(BATCH, 1, 17, 17, 0), 19),
    "batch without a queue": (Pairing(BATCH, 1, 7, 7, 0), 0),
    "views of all": (Pairing(VIEWS, 2, 11, 11, 0), 0),
    "views of one image": (Pairing(VIEWS, 3, 1, 1, 0), 0),
    "views of some": (Pairing(VIEWS, 3, 6, 11, 4), 0),
    "views of the last": (Pairing(VIEWS, 2, 1, 19, 18), 0),
}
# Numbers of a row; multiplied at a time; summed up at a time.
DEPTHS = {
    "whole": (17, 32, 32),
    "parts multiplied": (31, 16, 32),
    "parts summed up": (37, 16, 32),
}
TEMPERATURE = 0.1


@pytest.fixture(params=DEPTHS)
def d(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of rows; blocks are made small, so that few rows are many blocks."""
    length, deep, wide = DEPTHS[request.param]
    monkeypatch.setattr(gpu, "blocks", lambda *_: gpu.Blocks(16, 16, deep, wide, 4, 1))
    return length


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients(case: str, d: int):
    check(case, d, torch.float32)


@pytest.mark.parametrize("case", ["queue", "views of some"])
def test_float16(case: str, d: int):
    check(case, d, torch.float16)


@pytest.mark.parametrize("d", [1, 16])
def test_fewest_numbers(d: int):
    check("views of the last", d, torch.float32)
    check("queue, one query, one key", d, torch.float16)


@pytest.mark.parametrize("multiprocessors", [1, 40])
def test_how_keys_are_split_does_not_matter(multiprocessors: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "INTERPRETED_MULTIPROCESSORS", multiprocessors)
    monkeypatch.setattr(gpu, "blocks", lambda *_: gpu.Blocks(16, 16, 16, 16, 4, 1))
    for case in ("batch", "views of some"):
        check(case, 7, torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_usual_blocks(dtype: torch.dtype):
    """Not made small: 64 x 32 logits or 128 x 64."""
    pairing = Pairing(VIEWS, 2, 35, 35, 0)
    queries, companions, _ = arguments(pairing, 24, 0, dtype)
    given = queries, companions, None, TEMPERATURE, pairing, True
    for mine, theirs in zip(gpu.forward(*given), cpu.forward(*given), strict=True):
        assert_close(mine, theirs, dtype)


def check(case: str, d: int, dtype: torch.dtype) -> None:
    pairing, keys = CASES[case]
    queries, companions, queue = arguments(pairing, d, keys, dtype)
    given = queries, companions, queue, TEMPERATURE, pairing
    expected = cpu.forward(*given, True)
    for mine, theirs in zip(gpu.forward(*given, True), expected, strict=True):
        assert_close(mine, theirs, dtype)
    loss, lse, slope = gpu.forward(*given, False)
    assert len(slope) == 0
    assert_close(loss, expected[0], dtype)
    if pairing.kind != QUEUE:
        same(torch.tensor(3.0), queries, companions, lse, pairing, True)
    if queue is not None:
        same(torch.tensor(3.0), queries, queue, lse, pairing, False)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 9), (3, 1)])
def test_views_that_are_their_own_companions(shape: tuple[int, int], d: int, dtype: torch.dtype):
    pairing = Pairing(VIEWS, *shape, shape[1], 0)
    rows = unit(*shape, d, dtype=dtype).flatten(0, 1)
    _, lse, _ = cpu.forward(rows, rows, None, TEMPERATURE, pairing, False)
    same(torch.tensor(3.0), rows, None, lse, pairing, True)


def test_an_empty_queue_has_no_gradient():
    queries = unit(4, 5)
    given = torch.ones(()), queries, torch.zeros(0, 5), torch.zeros(4), 0.1
    assert gpu.pulled(*given, Pairing(BATCH, 1, 4, 4, 0), False).shape == (0, 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("case", ["queue", "views of some"])
def test_what_is_no_number_is_not_hidden(case: str, bad: float):
    pairing, keys = CASES[case]
    queries, companions, queue = arguments(pairing, 5, keys, torch.float32)
    queries[3, 2] = bad
    loss, _, slope = gpu.forward(queries, companions, queue, TEMPERATURE, pairing, True)
    assert not loss.isfinite() and not slope[3].isfinite().any()
    queries[3, 2] = 0.5
    (companions if queue is None else queue)[9, 0] = bad
    assert not gpu.forward(queries, companions, queue, TEMPERATURE, pairing, True)[0].isfinite()


def test_rows_without_length():
    pairing = Pairing(QUEUE, 1, 4, 4, 0)
    nothing = torch.zeros(4, 6)
    loss, lse, slope = gpu.forward(nothing, nothing, torch.zeros(9, 6), 0.1, pairing, True)
    torch.testing.assert_close(loss, torch.tensor(10.0).log())
    assert slope.isfinite().all()
    made = gpu.pulled(torch.ones(()), nothing, torch.zeros(9, 6), lse, 0.1, pairing, False)
    assert made.isfinite().all()


def same(
    scale: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor | None, lse: torch.Tensor,
    pairing: Pairing, companions: bool,
) -> None:  # fmt: skip
    given: tuple[Any, ...] = (scale, queries, keys, lse, TEMPERATURE, pairing, companions)
    mine, theirs = gpu.pulled(*given), cpu.pulled(*given)
    assert mine.dtype == theirs.dtype
    assert_close(mine, theirs, queries.dtype, float(scale) / (len(queries) * TEMPERATURE))


def assert_close(
    mine: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype, size: float = 1.0
) -> None:
    """`size` is that of terms which may have cancelled out."""
    most = max(float(theirs.abs().max()), size)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=TOLERANCE[dtype] * most)
