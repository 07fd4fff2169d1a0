"""Losses on a GPU: against float64 at full size, determinism, memory."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from helpers_contrast import assert_close, loss_and_grads, unit

from patchmill.kernels import contrast
from patchmill.kernels.contrast import reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted"),
]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def moco(batch: int, keys: int, d: int, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    rows = (
        unit(batch, d, dtype=dtype),
        unit(batch, d, dtype=dtype, seed=1),
        unit(keys, d, dtype=dtype),
    )
    return [it.cuda() for it in rows]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_batch", [False, True])
@pytest.mark.parametrize("d", [1, 31, 128, 200, 256, 512, 4096])
@pytest.mark.parametrize("shape", [(1, 1), (67, 331), (256, 4096), (1000, 3001)])
def test_info_nce(shape: tuple[int, int], d: int, in_batch: bool, dtype: torch.dtype):
    assert_close(
        lambda *a: contrast.info_nce(*a, 0.2, in_batch),
        lambda *a: reference.info_nce(*a, 0.2, in_batch),
        moco(*shape, d, dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 1, 128), (2, 513, 128), (5, 67, 31), (2, 1024, 512)])
def test_nt_xent(shape: tuple[int, int, int], dtype: torch.dtype):
    assert_close(
        lambda z: contrast.nt_xent(z, 0.1),
        lambda z: reference.nt_xent(z, 0.1),
        [unit(*shape, dtype=dtype).cuda()],
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [128, 300])
def test_nt_xent_of_gathered_rows(d: int, dtype: torch.dtype):
    z, every = unit(3, 101, d, dtype=dtype), unit(3, 407, d, dtype=dtype, seed=1)
    assert_close(
        lambda *a: contrast.nt_xent(a[0], 0.1, a[1], 203),
        lambda *a: reference.nt_xent(a[0], 0.1, a[1], 203),
        [z.cuda(), every.cuda()],
    )


@pytest.mark.parametrize("batch", [32, 256, 4096])
def test_deterministic(batch: int):
    rows = moco(batch, 65536, 128)
    loss: Callable[..., torch.Tensor] = lambda *a: contrast.info_nce(*a, 0.2)  # noqa: E731
    first = loss_and_grads(loss, rows)
    for _ in range(3):
        assert all(map(torch.equal, first, loss_and_grads(loss, rows)))


def test_memory_without_logits():
    """4096 x 65536 logits are 1 GiB in float32; extra memory is at most 64 MiB."""
    q, p, k = moco(4096, 65536, 128)
    q.requires_grad_()
    contrast.info_nce(q, p, k, 0.2).backward()
    q.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    contrast.info_nce(q, p, k, 0.2).backward()
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= 64 * 2**20


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_propagate(bad: float):
    for dtype in DTYPES:
        rows = moco(67, 331, 128, dtype)
        rows[2][9, 5] = bad
        found = loss_and_grads(lambda *a: contrast.info_nce(*a, 0.2), rows)
        assert not found[0].isfinite() and not found[1].isfinite().all()


def test_compiles_without_graph_breaks():
    rows = moco(64, 1000, 128)
    loss: Callable[..., torch.Tensor] = lambda *a: contrast.info_nce(*a, 0.2)  # noqa: E731
    whole = torch.compile(loss, fullgraph=True)
    for mine, theirs in zip(loss_and_grads(whole, rows), loss_and_grads(loss, rows), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_no_synchronisation():
    q, p, k = moco(256, 65536, 128)
    q.requires_grad_()
    contrast.info_nce(q, p, k, 0.2).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        contrast.info_nce(q, p, k, 0.2).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
