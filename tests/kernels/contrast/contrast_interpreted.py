"""The Triton kernels, interpreted on CPU tensors, against the CPU backend.

Not in bfloat16, whose bits the interpreter's tl.dot treats as integers.
"""

from __future__ import annotations

import itertools
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
# d, BLOCK_K, BLOCK_D.
DEPTHS = {
    "whole rows": (17, 32, 32),
    "products in parts": (31, 16, 32),
    "sums in parts": (37, 16, 32),
}
MOST = "sums in parts"  # the one that splits both
TEMPERATURE = 0.1


@pytest.fixture(params=DEPTHS)
def d(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Elements of a row; blocks are small, so that few rows make many blocks."""
    length, k, block_d = DEPTHS[request.param]
    monkeypatch.setattr(gpu, "blocks", lambda *_: gpu.Blocks(16, 16, k, block_d, 4, 1))
    return length


SOME = ("queue", "batch", "views of some")


@pytest.mark.parametrize(
    ("case", "d"),
    [
        pytest.param(case, depth, marks=[] if case in SOME or depth == MOST else pytest.mark.slow)
        for case, depth in itertools.product(CASES, DEPTHS)
    ],
    indirect=["d"],
)
def test_losses_and_gradients(case: str, d: int):
    check(case, d, torch.float32)


@pytest.mark.parametrize("case", ["queue", "views of some"])
def test_float16(case: str, d: int):
    check(case, d, torch.float16)


@pytest.mark.parametrize("d", [1, 16])
def test_narrowest_rows(d: int):
    check("views of the last", d, torch.float32)
    check("queue, one query, one key", d, torch.float16)


@pytest.mark.parametrize("multiprocessors", [1, 40])
def test_any_number_of_splits(multiprocessors: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "INTERPRETED_MULTIPROCESSORS", multiprocessors)
    monkeypatch.setattr(gpu, "blocks", lambda *_: gpu.Blocks(16, 16, 16, 16, 4, 1))
    for case in ("batch", "views of some"):
        check(case, 7, torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_default_blocks(dtype: torch.dtype):
    """Blocks of 64 x 32 logits or 128 x 64."""
    pairing = Pairing(VIEWS, 2, 35, 35, 0)
    queries, batch_keys, _ = arguments(pairing, 24, 0, dtype)
    args = queries, batch_keys, None, TEMPERATURE, pairing, True
    for mine, theirs in zip(gpu.forward(*args), cpu.forward(*args), strict=True):
        assert_close(mine, theirs, dtype)


def check(case: str, d: int, dtype: torch.dtype) -> None:
    pairing, keys = CASES[case]
    queries, batch_keys, queue = arguments(pairing, d, keys, dtype)
    args = queries, batch_keys, queue, TEMPERATURE, pairing
    expected = cpu.forward(*args, True)
    for mine, theirs in zip(gpu.forward(*args, True), expected, strict=True):
        assert_close(mine, theirs, dtype)
    loss, lse, grad = gpu.forward(*args, False)
    assert len(grad) == 0
    assert_close(loss, expected[0], dtype)
    if pairing.kind != QUEUE:
        assert_same_backward(torch.tensor(3.0), queries, batch_keys, lse, pairing, True)
    if queue is not None:
        assert_same_backward(torch.tensor(3.0), queries, queue, lse, pairing, False)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 9), (3, 1)])
def test_queries_that_are_their_own_batch_keys(shape: tuple[int, int], d: int, dtype: torch.dtype):
    pairing = Pairing(VIEWS, *shape, shape[1], 0)
    rows = unit(*shape, d, dtype=dtype).flatten(0, 1)
    _, lse, _ = cpu.forward(rows, rows, None, TEMPERATURE, pairing, False)
    assert_same_backward(torch.tensor(3.0), rows, None, lse, pairing, True)


def test_an_empty_queue_has_no_gradient():
    queries = unit(4, 5)
    args = torch.ones(()), queries, torch.zeros(0, 5), torch.zeros(4), 0.1
    assert gpu.backward_keys(*args, Pairing(BATCH, 1, 4, 4, 0), False).shape == (0, 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("case", ["queue", "views of some"])
def test_nan_and_inf_propagate(case: str, bad: float):
    pairing, keys = CASES[case]
    queries, batch_keys, queue = arguments(pairing, 5, keys, torch.float32)
    queries[3, 2] = bad
    loss, _, grad = gpu.forward(queries, batch_keys, queue, TEMPERATURE, pairing, True)
    assert not loss.isfinite() and not grad[3].isfinite().any()
    queries[3, 2] = 0.5
    (batch_keys if queue is None else queue)[9, 0] = bad
    assert not gpu.forward(queries, batch_keys, queue, TEMPERATURE, pairing, True)[0].isfinite()


def test_zero_rows():
    pairing = Pairing(QUEUE, 1, 4, 4, 0)
    zeros = torch.zeros(4, 6)
    loss, lse, grad = gpu.forward(zeros, zeros, torch.zeros(9, 6), 0.1, pairing, True)
    torch.testing.assert_close(loss, torch.tensor(10.0).log())
    assert grad.isfinite().all()
    grad_keys = gpu.backward_keys(
        torch.ones(()), zeros, torch.zeros(9, 6), lse, 0.1, pairing, False
    )
    assert grad_keys.isfinite().all()


def assert_same_backward(
    scale: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor | None, lse: torch.Tensor,
    pairing: Pairing, batch_keys: bool,
) -> None:  # fmt: skip
    args: tuple[Any, ...] = (scale, queries, keys, lse, TEMPERATURE, pairing, batch_keys)
    mine, theirs = gpu.backward_keys(*args), cpu.backward_keys(*args)
    assert mine.dtype == theirs.dtype
    assert_close(mine, theirs, queries.dtype, float(scale) / (len(queries) * TEMPERATURE))


def assert_close(
    mine: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype, size: float = 1.0
) -> None:
    """`size` is the magnitude of terms that may have cancelled."""
    most = max(float(theirs.abs().max()), size)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=TOLERANCE[dtype] * most)
