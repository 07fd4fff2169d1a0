"""On a GPU: parity at full size, runs, memory, and what no interpreter can show."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from helpers_patches import FLOATS, NORMALISE, assert_right, make, results

from patchmill.kernels import patches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted"),
]

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SHAPES = [(375, 500), (500, 333), (64, 1200), (480, 480), (65, 67), (768, 1024)]


def bytes_of(*shape: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(shape[0])
    return torch.randint(0, 256, shape, generator=random).byte()


@pytest.mark.parametrize("out", FLOATS)
@pytest.mark.parametrize("size, stride", [(32, 32), (64, 16), (7, 3)])
def test_grids(size: int, stride: int, out: torch.dtype):
    scale = {"mean": MEAN, "std": STD, "dtype": out}
    close = {"rtol": 2 * torch.finfo(out).eps, "atol": 1e-5}
    ragged = [bytes_of(*shape, 3) for shape in SHAPES]
    batch = bytes_of(8, 3, 224, 200)
    last = batch.contiguous(memory_format=torch.channels_last)
    for images in (ragged, batch, last, batch / 255, (batch / 255).bfloat16()):
        there = [it.cuda() for it in images] if isinstance(images, list) else images.cuda()
        ours, theirs = patches.grid(there, size, stride, **scale), patches.grid(
            images, size, stride, **scale
        )  # fmt: skip
        torch.testing.assert_close(ours.patches.cpu(), theirs.patches, **close)
        for name in ("counts", "index", "positions"):
            mine = getattr(ours, name)
            assert mine.is_cuda and torch.equal(mine.cpu(), getattr(theirs, name))


@pytest.mark.parametrize("size, stride", [(32, 32), (32, 12), (48, 64)])
def test_gradients_of_grids(size: int, stride: int):
    images = torch.randn(4, 3, 224, 200, generator=torch.Generator().manual_seed(0))
    slopes = []
    for there in (images, images.cuda()):
        leaf = there.requires_grad_()
        made = patches.grid(leaf, size, stride, mean=MEAN, std=STD).patches
        slopes.append(torch.autograd.grad(made.square().sum(), leaf)[0].cpu())
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-4, atol=1e-3)


def on_gpu(case: Any, normalise: Any, **whose: Any) -> list[torch.Tensor]:
    there = case._replace(
        rows=case.rows.cuda(), index=case.index.cuda(), gradient=case.gradient.cuda(),
        weights=None if case.weights is None else case.weights.cuda(),
    )  # fmt: skip
    whose = whose or {"index": there.index, "images": case.images}
    return results(
        lambda rows, weights: patches.aggregate(
            rows, normalise=normalise, weights=weights, **whose
        ),
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
def test_runs_are_equal_to_the_bit(images: int):
    case = make([64] * images, 96, torch.bfloat16, True, mixed=True)
    for normalise in NORMALISE:
        first = on_gpu(case, normalise)
        for _ in range(10):
            again = on_gpu(case, normalise)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_what_is_wrong_is_said():
    rows = torch.zeros(5, 8, device="cuda")
    for counts in ([3, 3], torch.tensor([3, 3]), torch.tensor([6, -1]).cuda()):
        with pytest.raises(ValueError, match="beside 5 embeddings"):
            patches.aggregate(rows, counts)
    with pytest.raises(ValueError, match="from 0 to 4"):
        patches.aggregate(rows, index=torch.arange(5).cuda(), images=4)
    with pytest.raises(ValueError, match="on cuda"):
        patches.aggregate(rows, index=torch.arange(5), images=5)


def most_beside(face: Any) -> int:
    """Bytes of GPU memory at the most, beside what was there."""
    face()  # compiles
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = face()
    torch.cuda.synchronize()
    del kept
    return torch.cuda.max_memory_allocated() - before


def test_a_grid_makes_its_patches_and_no_more():
    images = bytes_of(64, 3, 224, 224).cuda()
    count = 64 * 13 * 13
    made = count * 3 * 32 * 32 * 2
    beside = 64 * count + (1 << 20)  # index, positions, and what they are computed from
    assert most_beside(lambda: patches.grid(images, 32, 16, dtype=torch.bfloat16)) <= made + beside


def test_means_make_no_copy_of_the_embeddings():
    rows = torch.randn(256 * 256, 1024, device="cuda", dtype=torch.bfloat16).requires_grad_()
    counts = torch.full((256,), 256)
    means = 256 * 1024 * 4
    parts = 8 * 132 * 1024 * 4
    assert most_beside(
        lambda: patches.aggregate(rows, counts, normalise="each")
    ) <= means + 2 * parts + (1 << 20)
    pulled = patches.aggregate(rows, counts, normalise="each")
    slope = torch.randn_like(pulled)
    beside = most_beside(lambda: torch.autograd.grad(pulled, rows, slope, retain_graph=True))
    assert beside <= rows.nbytes + 6 * means + (1 << 20)


def test_grows_as_on_the_cpu():
    case = make([9, 0, 30], 65, torch.float32, False, True)
    here, there = patches.Aggregator(3, 65, "each"), patches.Aggregator(3, 65, "each", "cuda")
    for rows, index in zip(case.rows.split(7), case.index.split(7), strict=True):
        here.add(rows, index)
        there.add(rows.cuda(), index.cuda())
    torch.testing.assert_close(there.mean().cpu(), here.mean(), rtol=1e-5, atol=1e-6)
    assert torch.equal(there.counts.cpu(), here.counts)


def test_inside_torch_compile():
    images = torch.randn(4, 3, 64, 64, device="cuda").requires_grad_()

    def loss(images: torch.Tensor) -> torch.Tensor:
        its = patches.grid(images, 16, 8, mean=MEAN, std=STD)
        means = patches.aggregate(its.patches.flatten(1), index=its.index, images=4)
        return means.square().sum()

    expected = torch.autograd.grad(loss(images), images)[0]
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True)(images), images)[0]
    torch.testing.assert_close(found, expected)


def test_more_numbers_than_32_bits_count():
    """Rows and patches beyond place 2**31 are read and written where they are."""
    rows = torch.zeros(2**19 + 4, 4096 + 512, device="cuda", dtype=torch.bfloat16)
    rows[-4:] = 1
    means = patches.aggregate(rows, [2**19, 4])
    assert means[0].eq(0).all() and means[1].eq(1).all()
    images = torch.zeros(800, 3, 960, 960, device="cuda", dtype=torch.uint8)
    images[-1] = 255
    made = patches.grid(images, 480, dtype=torch.float16).patches
    assert made.numel() > 2**31
    assert made[-4:].eq(1).all() and made[:-4].amax() == 0
