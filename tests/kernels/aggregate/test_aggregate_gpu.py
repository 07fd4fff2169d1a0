"""Aggregation on a GPU: accuracy at full size, determinism, memory."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from helpers_aggregate import FLOATS, NORMALISE, assert_right, make, results
from helpers_gpu_memory import peak_extra_memory

from patchmill.kernels.aggregate import Aggregator, aggregate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted"),
]


def on_gpu(case: Any, normalise: Any, **whose: Any) -> list[torch.Tensor]:
    there = case._replace(
        rows=case.rows.cuda(), index=case.index.cuda(), gradient=case.gradient.cuda(),
        weights=None if case.weights is None else case.weights.cuda(),
    )  # fmt: skip
    whose = whose or {"index": there.index, "images": case.images}
    return results(
        lambda rows, weights: aggregate(rows, normalise=normalise, weights=weights, **whose),
        there,
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("d", [1, 37, 64, 384, 512, 2048, 4096, 5000])
def test_means_and_all_gradients(d: int, weighted: bool, normalise: str, dtype: torch.dtype):
    counts = [256, 0, 1, 700, 16, 17]
    case = make(counts, d, dtype, weighted, mixed=True)
    assert_right(on_gpu(case, normalise), case, normalise)
    case = make(counts, d, dtype, weighted, mixed=False)
    for given in (counts, torch.tensor(counts), torch.tensor(counts).cuda()):
        assert_right(on_gpu(case, normalise, counts=given), case, normalise)


@pytest.mark.parametrize("images", [2, 64, 3000])
def test_deterministic(images: int):
    case = make([64] * images, 96, torch.bfloat16, True, mixed=True)
    for normalise in NORMALISE:
        first = on_gpu(case, normalise)
        for _ in range(10):
            again = on_gpu(case, normalise)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_bad_input_raises():
    rows = torch.zeros(5, 8, device="cuda")
    for counts in ([3, 3], torch.tensor([3, 3]), torch.tensor([6, -1]).cuda()):
        with pytest.raises(ValueError, match="but there are 5 embeddings"):
            aggregate(rows, counts)
    with pytest.raises(ValueError, match="from 0 to 4"):
        aggregate(rows, index=torch.arange(5).cuda(), images=4)
    with pytest.raises(ValueError, match="on cuda"):
        aggregate(rows, index=torch.arange(5), images=5)


def test_means_make_no_copy_of_the_embeddings():
    rows = torch.randn(256 * 256, 1024, device="cuda", dtype=torch.bfloat16).requires_grad_()
    counts = torch.full((256,), 256)
    means = 256 * 1024 * 4
    parts = 8 * 132 * 1024 * 4
    assert peak_extra_memory(
        lambda: aggregate(rows, counts, normalise="each")
    ) <= means + 2 * parts + (1 << 20)
    means_of_rows = aggregate(rows, counts, normalise="each")
    grad = torch.randn_like(means_of_rows)
    extra = peak_extra_memory(
        lambda: torch.autograd.grad(means_of_rows, rows, grad, retain_graph=True)
    )
    assert extra <= rows.nbytes + 6 * means + (1 << 20)


def test_aggregator_matches_the_cpu():
    case = make([9, 0, 30], 65, torch.float32, False, True)
    here, there = Aggregator(3, 65, "each"), Aggregator(3, 65, "each", "cuda")
    for rows, index in zip(case.rows.split(7), case.index.split(7), strict=True):
        here.add(rows, index)
        there.add(rows.cuda(), index.cuda())
    torch.testing.assert_close(there.mean().cpu(), here.mean(), rtol=1e-5, atol=1e-6)
    assert torch.equal(there.counts.cpu(), here.counts)


def test_more_than_2_31_elements():
    """Rows beyond element 2**31 are addressed correctly."""
    rows = torch.zeros(2**19 + 4, 4096 + 512, device="cuda", dtype=torch.bfloat16)
    rows[-4:] = 1
    means = aggregate(rows, [2**19, 4])
    assert means[0].eq(0).all() and means[1].eq(1).all()
