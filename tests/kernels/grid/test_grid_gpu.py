"""Grids on a GPU: accuracy at full size, gradients, memory."""

from __future__ import annotations

import os

import pytest
import torch
from helpers_aggregate import FLOATS
from helpers_gpu_memory import peak_extra_memory

from patchmill.kernels.aggregate import aggregate
from patchmill.kernels.grid import grid

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
        ours, theirs = grid(there, size, stride, **scale), grid(
            images, size, stride, **scale
        )  # fmt: skip
        torch.testing.assert_close(ours.patches.cpu(), theirs.patches, **close)
        for name in ("counts", "index", "positions"):
            mine = getattr(ours, name)
            assert mine.is_cuda and torch.equal(mine.cpu(), getattr(theirs, name))


@pytest.mark.parametrize("size, stride", [(32, 32), (32, 12), (48, 64)])
def test_gradients_of_grids(size: int, stride: int):
    images = torch.randn(4, 3, 224, 200, generator=torch.Generator().manual_seed(0))
    grads = []
    for there in (images, images.cuda()):
        leaf = there.requires_grad_()
        patches = grid(leaf, size, stride, mean=MEAN, std=STD).patches
        grads.append(torch.autograd.grad(patches.square().sum(), leaf)[0].cpu())
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-3)


def test_memory_of_a_grid():
    images = bytes_of(64, 3, 224, 224).cuda()
    count = 64 * 13 * 13
    patches = count * 3 * 32 * 32 * 2
    extra = 64 * count + (1 << 20)  # index, positions, and their intermediates
    assert peak_extra_memory(lambda: grid(images, 32, 16, dtype=torch.bfloat16)) <= patches + extra


def test_compiles_without_graph_breaks():
    images = torch.randn(4, 3, 64, 64, device="cuda").requires_grad_()

    def loss(images: torch.Tensor) -> torch.Tensor:
        cut = grid(images, 16, 8, mean=MEAN, std=STD)
        means = aggregate(cut.patches.flatten(1), index=cut.index, images=4)
        return means.square().sum()

    expected = torch.autograd.grad(loss(images), images)[0]
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True)(images), images)[0]
    torch.testing.assert_close(found, expected)


def test_more_than_2_31_elements():
    """Patches beyond element 2**31 are addressed correctly."""
    images = torch.zeros(800, 3, 960, 960, device="cuda", dtype=torch.uint8)
    images[-1] = 255
    patches = grid(images, 480, dtype=torch.float16).patches
    assert patches.numel() > 2**31
    assert patches[-4:].eq(1).all() and patches[:-4].amax() == 0
