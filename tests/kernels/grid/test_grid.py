"""Grids on the CPU, through the public function, against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels.grid import grid, operators, reference

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HALVES = (torch.float16, torch.bfloat16)
FLOATS = (torch.float32, *HALVES)
LAYOUTS = {
    "planes": lambda images: images,
    "channels last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "transposed": lambda images: images.transpose(2, 3).contiguous().transpose(2, 3),
    "every other": lambda images: images.repeat_interleave(2, 3)[..., ::2],
    "expanded": lambda images: images[:1].expand_as(images),
}


def bytes_of(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)


@pytest.mark.parametrize("out", FLOATS)
@pytest.mark.parametrize("kind", (torch.uint8, *FLOATS))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bit_identical_to_the_reference(layout: str, kind: torch.dtype, out: torch.dtype):
    images = LAYOUTS[layout](bytes_of(3, 3, 17, 23).to(kind))
    for scale in ({}, {"mean": MEAN, "std": STD}):
        found = grid(images, 5, 3, **scale, dtype=out).patches
        assert found.is_contiguous()
        assert torch.equal(found, reference.grid(list(images), 5, 3, **scale, dtype=out))


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 12), st.integers(1, 5))
def test_ragged_images(data: Any, size: int, stride: int, channels: int):
    side = st.integers(size, size + 14)
    shapes = data.draw(st.lists(st.tuples(side, side), min_size=1, max_size=5))
    images = [bytes_of(h, w, channels, seed=i) for i, (h, w) in enumerate(shapes)]
    found = grid(images, size, stride)
    assert torch.equal(
        found.patches, reference.grid([it.permute(2, 0, 1) for it in images], size, stride)
    )
    assert found.counts.tolist() == [(found.index == i).sum() for i in range(len(images))]
    assert (found.index.diff() >= 0).all()
    for patch, i, (y, x) in zip(found.patches, found.index, found.positions, strict=True):
        shown = images[i][y : y + size, x : x + size].permute(2, 0, 1)
        torch.testing.assert_close(patch, shown / 255)


def test_positions_go_row_by_row():
    found = grid(torch.zeros(2, 1, 7, 9), 3, 2)
    expected = [[y, x] for y in (0, 2, 4) for x in (0, 2, 4, 6)]
    assert found.positions.tolist() == expected * 2
    assert found.index.tolist() == [0] * 12 + [1] * 12
    assert found.counts.tolist() == [12, 12]


def test_images_of_numpy_and_views_of_images():
    array = np.arange(2 * 9 * 8 * 3, dtype=np.uint8).reshape(2, 9, 8, 3)
    found = grid([array[0], array[1, ::2, ::-1].copy()], 4)
    flipped = torch.from_numpy(array[1, ::2].copy()).flip(1)
    assert torch.equal(found.patches[-1], grid([flipped], 4).patches[-1])
    strided = torch.from_numpy(array[1])[::2]
    assert torch.equal(grid([strided], 4).patches, grid([strided + 0], 4).patches)


@pytest.mark.parametrize("size, stride", [(4, 4), (5, 2), (3, 5), (1, 1), (6, 4)])
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_of_overlapping_windows(scaled: bool, kind: torch.dtype, size: int, stride: int):
    images = torch.randn(3, 3, 13, 17, generator=torch.Generator().manual_seed(0)).to(kind)
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    scale = (MEAN, STD) if scaled else (None, None)
    found = grid(images, size, stride, mean=scale[0], std=scale[1], dtype=kind).patches
    grad_patches = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(kind)
    (ours,) = torch.autograd.grad(found, images, grad_patches)
    double = images.detach().double().requires_grad_()
    truth = reference.grid(list(double), size, stride, *scale, torch.float64)
    (expected,) = torch.autograd.grad(truth, double, grad_patches.double())
    assert ours.dtype == kind
    torch.testing.assert_close(ours.double(), expected, rtol=torch.finfo(kind).eps, atol=4e-6)


def test_any_number_of_threads():
    images = bytes_of(5, 3, 64, 80)
    floats = (images / 255).requires_grad_()
    found = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            patches = grid(floats, 24, 7, mean=MEAN, std=STD).patches
            (grad,) = torch.autograd.grad(patches.square().sum(), floats)
            ragged = grid(list(images.permute(0, 2, 3, 1)), 24, 7).patches
            found.append((patches, grad, ragged, grid(images, 24, 7).patches))
    finally:
        torch.set_num_threads(threads)
    for patches in zip(*found, strict=True):
        assert torch.equal(patches[0], patches[1]) and torch.equal(patches[0], patches[2])
    assert torch.equal(found[0][2], found[0][3])


def test_nan_and_inf_stay_in_place():
    images = torch.zeros(1, 1, 4, 4)
    images[0, 0, 1, 2], images[0, 0, 3, 0] = torch.nan, -torch.inf
    for kind in FLOATS:
        found = grid(images, 2, dtype=kind).patches.flatten()
        assert found.isnan().nonzero().tolist() == [[6]]
        assert found.isneginf().nonzero().tolist() == [[10]]


def test_outputs_in_huge_pages():
    images = bytes_of(8, 3, 256, 256)
    found = grid(images, 64, 64).patches
    assert found.nbytes > 4 << 20
    expected = images.unfold(2, 64, 64).unfold(3, 64, 64).permute(0, 2, 3, 1, 4, 5)
    assert torch.equal(found, expected.reshape(found.shape) / 255)


def test_float64_runs_the_reference():
    images = torch.randn(2, 3, 8, 9, dtype=torch.float64)
    found = grid(images, 4, mean=MEAN, std=STD, dtype=torch.float64)
    assert torch.equal(found.patches, reference.grid(list(images), 4, 4, MEAN, STD, torch.float64))
    ragged = grid([bytes_of(8, 9, 3)], 4, dtype=torch.float64).patches
    assert ragged.dtype == torch.float64


IMAGES = torch.zeros(2, 3, 8, 9)
BAD_INPUTS = {
    "image 1 is 3 x 9": lambda: grid([bytes_of(8, 9, 3), bytes_of(3, 9, 3)], 4),
    "image 0 is 8 x 9": lambda: grid(IMAGES, 9),
    "size and a stride of 1": lambda: grid(IMAGES, 4, 0),
    "one tensor of images as": lambda: grid(IMAGES[0], 4),
    "uint8 or floats": lambda: grid(IMAGES.int(), 4),
    "list of uint8 images": lambda: grid([IMAGES[0]], 4),
    "at least one image": lambda: grid([], 4),
    "image 1 has 1 channels": lambda: grid([bytes_of(8, 9, 3), bytes_of(8, 9, 1)], 4),
    "both or neither": lambda: grid(IMAGES, 4, mean=MEAN),
    "one number for each of 3": lambda: grid(IMAGES, 4, mean=[0.0], std=[1.0]),
    "patches of float32": lambda: grid(IMAGES, 4, dtype=torch.uint8),
}


@pytest.mark.parametrize("message", BAD_INPUTS)
def test_bad_input_raises(message: str):
    with pytest.raises(ValueError, match=message):
        BAD_INPUTS[message]()


def test_operators_pass_opcheck():
    images = torch.randn(2, 3, 9, 8, requires_grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    every = (*checks, "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        operators.unfold, (images, 4, 3, MEAN, STD, torch.bfloat16), test_utils=every
    )
    torch.library.opcheck(
        operators.fold, (torch.randn(8, 3, 4, 4), [2, 3, 9, 8], 4, 3, STD, torch.float32)
    )
    listed = [bytes_of(9, 8, 3), bytes_of(4, 7, 3)]
    cut = grid(listed, 4, 3)
    torch.library.opcheck(
        operators.unfold_ragged,
        (listed, cut.index, cut.positions, 4, 3, None, None, torch.float32), test_utils=checks,
    )  # fmt: skip


def test_compiles_without_graph_breaks():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(images: torch.Tensor) -> torch.Tensor:
        found = grid(images, 4, 3, mean=MEAN, std=STD)
        return (found.patches.square().mean((1, 2, 3)) * found.index).sum()

    images = torch.randn(2, 3, 9, 8, requires_grad=True)
    (ours,) = torch.autograd.grad(loss(images), images)
    found = grid(images, 4, 3, mean=MEAN, std=STD)
    expected = (found.patches.square().mean((1, 2, 3)) * found.index).sum()
    torch.testing.assert_close(ours, torch.autograd.grad(expected, images)[0])
