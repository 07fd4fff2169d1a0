"""Losses on the CPU: values and gradients against the reference, memory, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_contrast import assert_close, loss_and_grads, unit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from patchmill.kernels import contrast
from patchmill.kernels.contrast import cpu, operators, reference
from patchmill.kernels.contrast.pairing import QUEUE, VIEWS, Pairing

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, *HALVES)


BLOCKS: dict[str, dict[str, int]] = {
    "dense": {},
    "one block": {"DENSE_ROWS": 0},
    "many blocks": {"DENSE_ROWS": 0, "ROWS": 7, "COLUMNS": 11, "TASKS": 9},
}


@pytest.fixture(params=BLOCKS)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in BLOCKS[request.param].items():
        monkeypatch.setattr(cpu, name, small)


# ---------------------------------------------------------------------------- against the reference


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_batch", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 30, 3), (23, 61, 16), (40, 13, 129)])
def test_info_nce(shape: tuple[int, int, int], in_batch: bool, dtype: torch.dtype):
    batch, keys, d = shape
    rows = [unit(batch, d, dtype=dtype), unit(batch, d, dtype=dtype, seed=1)]
    rows.append(unit(keys, d, dtype=dtype, seed=2))
    assert_close(
        lambda *a: contrast.info_nce(*a, 0.2, in_batch),
        lambda *a: reference.info_nce(*a, 0.2, in_batch),
        rows,
    )


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 17, 16), (3, 9, 5), (7, 5, 33)])
def test_nt_xent(shape: tuple[int, int, int], dtype: torch.dtype):
    assert_close(
        lambda z: contrast.nt_xent(z, 0.1),
        lambda z: reference.nt_xent(z, 0.1),
        [unit(*shape, dtype=dtype)],
    )


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0, 4, 8])
def test_nt_xent_of_gathered_rows(offset: int, dtype: torch.dtype):
    z, every = unit(3, 9, 12, dtype=dtype), unit(3, 17, 12, dtype=dtype, seed=1)
    assert_close(
        lambda *a: contrast.nt_xent(a[0], 0.1, a[1], offset),
        lambda *a: reference.nt_xent(a[0], 0.1, a[1], offset),
        [z, every],
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_sizes(data: st.DataObject):
    """Blocks of a few logits, so that every kind of border occurs."""
    draw = lambda most: data.draw(st.integers(1, most))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ROWS", "COLUMNS", "TASKS"):
            patch.setattr(cpu, name, draw(12))
        views, local, d = 1 + draw(3), draw(9), draw(6)
        before, behind = draw(9) - 1, draw(9) - 1
        z, every = unit(views, local, d), unit(views, before + local + behind, d, seed=1)
        assert_close(
            lambda *a: contrast.nt_xent(a[0], 0.2, a[1], before),
            lambda *a: reference.nt_xent(a[0], 0.2, a[1], before),
            [z, every],
        )
        in_batch = data.draw(st.booleans())
        assert_close(
            lambda *a: contrast.info_nce(*a, 0.2, in_batch),
            lambda *a: reference.info_nce(*a, 0.2, in_batch),
            [unit(local, d), unit(local, d, seed=1), unit(draw(30), d)],
        )


@pytest.mark.parametrize("d", [1, 255, 4096])
def test_row_lengths(d: int):
    rows = [unit(9, d), unit(9, d, seed=1), unit(40, d, seed=2)]
    assert_close(
        lambda *a: contrast.info_nce(*a, 0.2), lambda *a: reference.info_nce(*a, 0.2), rows
    )


@pytest.mark.parametrize("temperature", [1e-3, 1, 50.0])
def test_temperatures(temperature: float):
    rows = [unit(20, 8), unit(20, 8, seed=1), unit(40, 8, seed=2)]
    assert_close(
        lambda *a: contrast.info_nce(*a, temperature),
        lambda *a: reference.info_nce(*a, temperature),
        rows,
    )


def test_float64_runs_the_reference():
    rows = [unit(5, 8).double(), unit(5, 8, seed=1).double(), unit(9, 8).double()]
    ours = loss_and_grads(lambda *a: contrast.info_nce(*a, 0.2), rows)
    for mine, theirs in zip(
        ours, loss_and_grads(lambda *a: reference.info_nce(*a, 0.2), rows), strict=True
    ):
        assert mine.dtype == torch.float64 and torch.equal(mine, theirs)


def test_any_strides():
    z = unit(2, 12, 6)
    apart = z.transpose(0, 2).contiguous().transpose(0, 2)
    ours = loss_and_grads(lambda a: contrast.nt_xent(a, 0.2), [apart])
    for mine, theirs in zip(
        ours, loss_and_grads(lambda a: contrast.nt_xent(a, 0.2), [z]), strict=True
    ):
        assert torch.equal(mine, theirs)
    queue = unit(30, 6).T.contiguous().T
    rows = unit(9, 6), unit(9, 6, seed=1)
    assert torch.equal(
        contrast.info_nce(*rows, queue, 0.2), contrast.info_nce(*rows, queue.contiguous(), 0.2)
    )


def test_gradients_only_where_required():
    q, p, k = unit(9, 6).requires_grad_(), unit(9, 6, seed=1), unit(20, 6)
    contrast.info_nce(q, p, k, 0.2).backward()
    assert q.grad is not None and p.grad is None and k.grad is None
    k.requires_grad_()
    contrast.info_nce(q.detach(), p, k, 0.2).backward()
    assert k.grad is not None
    with torch.no_grad():
        assert not contrast.info_nce(q, p, k, 0.2).requires_grad


@pytest.mark.parametrize("loss_name", ["queue", "views"])
@pytest.mark.parametrize("many", [False, True])
def test_any_number_of_threads(loss_name: str, many: bool):
    if loss_name == "queue":
        batch = 1025 if many else 40
        rows = [unit(batch, 200), unit(batch, 200, seed=1), unit(5000, 200)]
        loss: Any = lambda *a: contrast.info_nce(*a, 0.2)  # noqa: E731
    else:
        rows = [unit(2, 700, 24) if many else unit(2, 96, 192)]
        loss = lambda z: contrast.nt_xent(z, 0.2)  # noqa: E731
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(loss_and_grads(loss, rows))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


# -------------------------------------------------------------------------------- special values


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_and_inf_propagate(place: int, bad: float):
    rows = [unit(9, 6), unit(9, 6, seed=1), unit(20, 6)]
    rows[place][3, 2] = bad
    for in_batch in (False, True):
        assert not contrast.info_nce(*rows, 0.2, in_batch).isfinite()
    z = unit(2, 9, 6)
    z[1, 3, 2] = bad
    found = loss_and_grads(lambda a: contrast.nt_xent(a, 0.2), [z])
    assert not found[0].isfinite() and not found[1].isfinite().all()


def test_zero_rows():
    """All logits are 0: the loss is the logarithm of their number; gradients are finite."""
    zeros = torch.zeros(4, 6)
    found = loss_and_grads(lambda *a: contrast.info_nce(*a, 0.2), [zeros, zeros, torch.zeros(9, 6)])
    torch.testing.assert_close(found[0], torch.tensor(10.0).log())
    assert all(it.isfinite().all() for it in found)


def test_one_image_has_no_negatives():
    value, grad = loss_and_grads(lambda z: contrast.nt_xent(z, 0.2), [unit(2, 1, 6)])
    assert abs(value) < 1e-6 and grad.abs().max() < 1e-6


def test_batch_keys_without_a_queue():
    rows = [unit(9, 6), unit(9, 6, seed=1), torch.zeros(0, 6)]
    assert_close(
        lambda *a: contrast.info_nce(*a, 0.2, in_batch=True),
        lambda *a: reference.info_nce(*a, 0.2, in_batch=True),
        rows,
    )


# ------------------------------------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation returned."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for it in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(it, torch.Tensor):
                self.size = max(self.size, it.untyped_storage().nbytes())
        return result


def test_no_matrix_of_logits(monkeypatch: pytest.MonkeyPatch):
    """Extra memory is at most a tenth of it, forward and backward."""
    queries, keys = unit(512, 4), unit(32768, 4)
    logits = 4 * len(queries) * len(keys)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # other threads' tensors go unseen
    pairing = Pairing(QUEUE, 1, 512, 512, 0)
    with Largest() as largest:
        _, lse, _ = cpu.forward(queries, queries, keys, 0.2, pairing, True)
        assert largest.size <= logits / 10
        cpu.backward_keys(torch.ones(()), queries, keys, lse, 0.2, pairing, False)
        assert largest.size <= logits / 10
        cpu.backward_keys(torch.ones(()), keys[:4096], None, torch.zeros(4096), 0.2,
                   Pairing(VIEWS, 2, 2048, 2048, 0), True)  # fmt: skip
        assert largest.size <= logits / 10


# ------------------------------------------------------------------------------------ torch's tools


def test_operators_pass_opcheck():
    q, p, k = (unit(*s).requires_grad_() for s in ((8, 5), (8, 5), (30, 5)))
    check, op = torch.library.opcheck, torch.ops.patchmill
    check(op.contrast.default, (q, p, k, 0.2, "queue", 1, 8, 0, True))
    check(op.contrast.default, (q, p, k, 0.2, "batch", 1, 8, 0, True))
    check(op.contrast.default, (q, None, None, 0.2, "views", 2, 4, 0, False))
    check(op.contrast.default, (q, None, None, 0.2, "views", 2, 4, 0, True))
    check(op.contrast.default, (q, k, None, 0.2, "views", 2, 15, 3, True))
    lse = torch.zeros(8)
    one = torch.ones(())
    backward = (one, q.detach(), k.detach(), lse, 0.2, "queue", 1, 8, 0, False)
    check(op.contrast_backward_keys.default, backward)


def test_compiles_without_graph_breaks():
    rows = [unit(8, 5), unit(8, 5, seed=1), unit(30, 5)]
    plain: Any = lambda *a: contrast.info_nce(*a, 0.2) * 2  # noqa: E731
    whole = torch.compile(plain, fullgraph=True, backend="aot_eager")
    for mine, theirs in zip(loss_and_grads(whole, rows), loss_and_grads(plain, rows), strict=True):
        torch.testing.assert_close(mine, theirs)
    pair: Any = lambda z: contrast.nt_xent(z * 1, 0.2)  # noqa: E731
    whole = torch.compile(pair, fullgraph=True, backend="aot_eager")
    for mine, theirs in zip(
        loss_and_grads(whole, [unit(2, 8, 5)]), loss_and_grads(pair, [unit(2, 8, 5)]), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_autocast_has_no_effect():
    q, p, k = unit(8, 5), unit(8, 5, seed=1), unit(30, 5)
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrast.info_nce(q, p, k, 0.2)
    assert torch.equal(inside, contrast.info_nce(q, p, k, 0.2))


def test_double_backward_raises():
    q = unit(8, 5).requires_grad_()
    value = contrast.nt_xent(q.view(2, 4, 5), 0.2)
    (grad,) = torch.autograd.grad(value, q, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


def test_no_logits_are_saved_for_backward():
    """Autograd saves a few numbers per row."""
    q, k = unit(300, 4).requires_grad_(), unit(9000, 4)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda it: kept.append(it.numel()) or it, lambda it: it
    ):
        operators.forward(q, q, k, 0.2, QUEUE, 1, 300, 0, True)
    assert max(kept) <= k.numel()


# ---------------------------------------------------------------------------------------- bad input

Q, K, Z = torch.zeros(4, 3), torch.zeros(9, 3), torch.zeros(2, 4, 3)
BAD_INPUTS = {
    "no batch": (contrast.info_nce, (Q[:0], Q[:0], K, 0.2), "one shape"),
    "no numbers": (contrast.info_nce, (Q[:, :0], Q[:, :0], K[:, :0], 0.2), "one shape"),
    "unlike rows": (contrast.info_nce, (Q, Q[:3], K, 0.2), "one shape"),
    "a vector": (contrast.info_nce, (Q[0], Q[0], K, 0.2), "one shape"),
    "keys by columns": (contrast.info_nce, (Q, Q, K.T, 0.2), "transpose"),
    "no keys": (contrast.info_nce, (Q, Q, K[:0], 0.2), "in_batch"),
    "unlike types": (contrast.info_nce, (Q, Q, K.half(), 0.2), "one type"),
    "unlike devices": (contrast.info_nce, (Q, Q, K.to("meta"), 0.2), "one device"),
    "whole numbers": (contrast.info_nce, (Q.int(), Q.int(), K.int(), 0.2), "int32"),
    "temperature 0": (contrast.info_nce, (Q, Q, K, 0.0), "above 0"),
    "temperature below": (contrast.nt_xent, (Z, -1.0), "above 0"),
    "temperature nan": (contrast.nt_xent, (Z, float("nan")), "above 0"),
    "temperature inf": (contrast.nt_xent, (Z, float("inf")), "above 0"),
    "one view": (contrast.nt_xent, (Z[:1], 0.2), "two views"),
    "no views": (contrast.nt_xent, (Q, 0.2), "two views"),
    "no images": (contrast.nt_xent, (Z[:, :0], 0.2), "two views"),
    "whole numbers in views": (contrast.nt_xent, (Z.long(), 0.2), "int64"),
    "other views gathered": (contrast.nt_xent, (Z, 0.2, torch.zeros(3, 4, 3)), "gather"),
    "other types gathered": (contrast.nt_xent, (Z, 0.2, Z.half()), "one type"),
    "offset too far": (contrast.nt_xent, (Z, 0.2, Z, 1), "offset"),
    "offset below": (contrast.nt_xent, (Z, 0.2, Z, -1), "offset"),
    "offset of zeros": (contrast.nt_xent, (Z, 0.2, None, 2), "offset"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_raises_one_sentence(case: str):
    function, args, message = BAD_INPUTS[case]
    with pytest.raises(ValueError, match=message) as error:
        function(*args)
    assert "\n" not in str(error.value)
