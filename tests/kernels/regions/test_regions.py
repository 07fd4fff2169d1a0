"""Public functions on the CPU, against torchvision and the reference in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_regions import TOLERANCES, Case, case, expected, ramp
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels import regions
from patchmill.kernels.regions import cpu, operators, reference

# Maps [N, C, H, W], size of a grid, regions: of a ViT, of a detector, one pixel, primes, deep ones.
SHAPES = [
    ((4, 48, 14, 14), 10, 12), ((3, 300, 6, 6), 4, 20), ((2, 5, 31, 47), 7, 30),
    ((1, 1, 1, 1), 1, 5), ((2, 1, 3, 17), 3, 20), ((1, 4096, 2, 2), 2, 3),
]  # fmt: skip
FAST = (torch.float32, torch.float16, torch.bfloat16)


def pooled(it: Case, features: torch.Tensor) -> torch.Tensor:
    return regions.pool(features, it.boxes, it.index, it.size, *it.orientation)


def losses(near: Case, far: Case, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return regions.crop_loss(
        student, teacher, near.boxes, far.boxes, (near.index, far.index), near.size,
        *far.orientation,
    )  # fmt: skip


def leaf(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype, copy=True).requires_grad_()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "size", "count"), SHAPES)
def test_pooling(shape: tuple[int, int, int, int], size: int, count: int, dtype: torch.dtype):
    it = case(shape, size, count, mirrors=True)
    ours = leaf(it.features, dtype)
    truth = leaf(ours.detach(), torch.float64)
    found, right = pooled(it, ours), expected(it, truth)
    assert found.dtype == dtype
    assert_close(found, right, dtype)
    (by_ours,) = torch.autograd.grad(found, ours, ramp(found))
    (by_truth,) = torch.autograd.grad(right, truth, ramp(found).double())
    assert by_ours.dtype == dtype
    assert_close(by_ours, by_truth, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "size", "count"), SHAPES)
def test_losses(shape: tuple[int, int, int, int], size: int, count: int, dtype: torch.dtype):
    near, far = case(shape, size, count, 1), case((3, shape[1], 9, 8), size, count, 2, mirrors=True)
    # Numbers of one sign: if they cancel, a gradient of 1 / norm is pure rounding error.
    ours, teacher = (leaf(it.features.abs() + 0.5, dtype) for it in (near, far))
    truth = leaf(ours.detach(), torch.float64)
    found, right = losses(near, far, ours, teacher), losses(near, far, truth, teacher.double())
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.double(), right, rtol=1e-5, atol=1e-6)
    (by_ours,) = torch.autograd.grad(found, ours, ramp(found))
    (by_truth,) = torch.autograd.grad(right, truth, ramp(right))
    assert by_ours.dtype == dtype
    assert_close(by_ours, by_truth, dtype)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    corner=st.tuples(st.floats(-4, 16, width=32), st.floats(-4, 16, width=32)),
    extent=st.tuples(st.floats(0, 40, width=32), st.floats(0, 40, width=32)),
    size=st.integers(1, 10),
    turns=st.integers(-4, 7),
)
def test_any_box_counts_samples_like_torchvision(
    corner: tuple[float, float], extent: tuple[float, float], size: int, turns: int
):
    features = torch.randn(1, 3, 11, 13)
    low = torch.tensor([corner])
    none = torch.zeros(1, dtype=torch.int64)
    boxes = torch.cat([low, low + torch.tensor([extent])], 1)
    it = Case(features, boxes, none, size, none + turns, none.bool())
    torch.testing.assert_close(pooled(it, features), expected(it, features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["channels first", "transposed", "strided", "tokens"])
def test_any_layout(layout: str):
    it = case((2, 6, 8, 8), 3, 10)
    plain = it.features.float()
    shown = {
        "channels first": plain,
        "transposed": plain.mT.contiguous().mT,
        "strided": plain.repeat_interleave(2, 3)[..., ::2],
        "tokens": plain.flatten(2).mT.contiguous().mT.unflatten(2, (8, 8)),
    }[layout]
    assert torch.equal(pooled(it, shown), pooled(it, plain))
    assert pooled(it, shown).is_contiguous(memory_format=torch.channels_last)
    boxes = it.boxes.mT.contiguous().mT
    assert torch.equal(pooled(it._replace(boxes=boxes), plain), pooled(it, plain))


def test_gradients_through_strides():
    """Slicing and summing both change strides."""
    it = case((2, 6, 8, 8), 3, 10)
    large = torch.randn(2, 12, 8, 8, requires_grad=True)
    pooled(it, large[:, ::2]).sum().backward()
    alone = leaf(large[:, ::2].detach(), torch.float64)
    expected(it, alone).sum().backward()
    torch.testing.assert_close(large.grad[:, ::2].double(), alone.grad, rtol=1e-5, atol=1e-5)
    assert not large.grad[:, 1::2].any()


def test_any_number_of_threads():
    near, far = case((5, 300, 6, 6), 4, 40, 1), case((2, 300, 9, 8), 4, 40, 2, mirrors=True)
    threads, seen = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            student = leaf(near.features, torch.float32)
            found = losses(near, far, student, far.features.float())
            grids = pooled(near, student)
            by_loss = torch.autograd.grad(found, student, ramp(found))[0]
            by_grid = torch.autograd.grad(grids, student, ramp(grids))[0]
            seen.append((found, by_loss, grids, by_grid))
    finally:
        torch.set_num_threads(threads)
    for other in seen[1:]:
        assert all(map(torch.equal, seen[0], other))


def test_no_regions():
    none = case((2, 5, 4, 4), 3, 0)
    features = leaf(none.features, torch.float32)
    assert pooled(none, features).shape == (0, 5, 3, 3)
    (gradient,) = torch.autograd.grad(pooled(none, features).sum(), features)
    assert gradient.shape == features.shape
    assert not gradient.any()
    found = losses(none, none, features, features)
    assert found.shape == (0,)
    assert not torch.autograd.grad(found.sum(), features)[0].any()


def test_nan_and_inf_reach_the_bins_that_touch_them():
    features = torch.zeros(2, 3, 6, 6)
    features[0, 1, 2, 2] = torch.nan
    features[1, 0, 5, 5] = torch.inf
    it = case((2, 3, 6, 6), 3, 2)
    whole = torch.tensor([[0.0, 0, 6, 6]]).expand(2, 4)
    it = it._replace(boxes=whole, index=torch.arange(2), turns=torch.zeros(2, dtype=torch.int64))
    found = pooled(it, features)
    right = expected(it, features)  # whose infinities times 0 are NaN
    assert torch.equal(found.isfinite(), right.isfinite())
    torch.testing.assert_close(found[found.isfinite()], right[right.isfinite()])
    assert found.isnan()[0].any()
    assert found.isinf()[1].any()
    assert found[0, :, :, 2].isfinite().all()
    student = leaf(features, torch.float32)
    loss = losses(it, it, student, torch.ones_like(features))
    assert loss.isnan().all()
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert gradient[0, :, 2, 2].isnan().all()
    assert gradient[0, :, :, 5].isfinite().all()


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", range(4))
def test_boxes_with_nan_or_inf_give_nan(place: int, number: float):
    it = case((1, 2, 5, 5), 2, 2)
    boxes = torch.tensor([[1.0, 1, 4, 4], [1, 1, 4, 4]])
    boxes[0, place] = number
    found = pooled(it._replace(boxes=boxes), it.features.float())
    assert found[0].isnan().all()
    assert found[1].isfinite().all()
    same = pooled(it._replace(boxes=boxes.double()), it.features)
    assert torch.equal(found.isnan(), same.isnan())


@pytest.mark.parametrize("far", [1e6, 1e20, 3e38])
def test_huge_boxes_are_fast(far: float):
    boxes = torch.tensor([[-far, -far, far, far], [0, 0, far, 3], [-far, 0, -far / 2, 3]])
    found = regions.pool(torch.ones(1, 2, 4, 4), boxes, torch.zeros(3, dtype=torch.int64), 2)
    assert found.shape == (3, 2, 2, 2)
    assert not found[2].any()


def test_bins_of_norm_0_have_no_gradient():
    near, far = case((2, 4, 6, 6), 3, 8, 1), case((2, 4, 6, 6), 3, 8, 2)
    for student, teacher in ((0, 1), (1, 0), (0, 0), (1e-30, 1)):
        ours = leaf(near.features * student, torch.float32)
        found = losses(near, far, ours, far.features.float() * teacher)
        (gradient,) = torch.autograd.grad(found.sum(), ours)
        assert not found.any()
        assert not gradient.any()


def test_the_teacher_has_no_gradient():
    near, far = case((2, 4, 6, 6), 3, 8, 1), case((2, 4, 6, 6), 3, 8, 2)
    teacher = leaf(far.features, torch.float32)
    assert not losses(near, far, near.features.float(), teacher).requires_grad
    both = leaf(near.features, torch.float32)
    losses(near, far, both, teacher).sum().backward()
    assert teacher.grad is None


def test_one_call_equals_a_loop_over_pairs():
    near, far = case((6, 8, 6, 6), 4, 24, 1), case((4, 8, 9, 9), 4, 24, 2)
    student, teacher = near.features.float(), far.features.float()
    every = losses(near, far, student, teacher)
    for pair in range(24):
        at = slice(pair, pair + 1)
        one = losses(cut(near, at), cut(far, at), student, teacher)
        assert torch.equal(one, every[at])


def cut(it: Case, at: slice) -> Case:
    rest = (field[at] for field in (it.boxes, it.index, it.turns, it.mirrors))
    boxes, index, turns, mirrors = rest
    return Case(it.features, boxes, index, it.size, turns, mirrors)


def test_autocast_has_no_effect():
    it = case((2, 4, 6, 6), 3, 8)
    features = it.features.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pooled(it, features), pooled(it, features.clone()))
        assert pooled(it, features.bfloat16()).dtype == torch.bfloat16
        assert losses(it, it, features.bfloat16(), features.bfloat16()).dtype == torch.float32


def test_operators_pass_opcheck():
    near, far = case((2, 4, 6, 6), 3, 5, 1), case((3, 4, 5, 7), 3, 5, 2)
    maps = near.features.float().permute(0, 2, 3, 1).contiguous().requires_grad_()
    teacher = far.features.float().permute(0, 2, 3, 1).contiguous()
    boxes, others = near.boxes.float(), far.boxes.float()
    pose = near.turns % 4
    torch.library.opcheck(operators.pool, (maps, boxes, near.index, pose, 3))
    grids = torch.randn(5, 3, 3, 4)
    torch.library.opcheck(operators.pool_backward, (grids, boxes, near.index, pose, 2, 6, 6))
    given = (maps, teacher, boxes, others, near.index, far.index, pose, 3)
    torch.library.opcheck(operators.crop_loss, given)
    scales = torch.randn(2, 5, 9)
    args = (torch.randn(5), maps.detach(), *given[1:-1], *scales, 3)
    torch.library.opcheck(operators.crop_loss_backward, args)


def test_compiles_without_graph_breaks():
    near, far = case((2, 4, 6, 6), 3, 5, 1), case((3, 4, 5, 7), 3, 5, 2, mirrors=True)

    def step(student: torch.Tensor) -> torch.Tensor:
        both = losses(near, far, student, far.features.float()).mean() + pooled(near, student).sum()
        return both * 2

    plain, compiled = leaf(near.features, torch.float32), leaf(near.features, torch.float32)
    step(plain).backward()
    torch.compile(step, fullgraph=True, backend="aot_eager")(compiled).backward()
    assert torch.equal(plain.grad, compiled.grad)


INT = torch.zeros(2, dtype=torch.int64)
GOOD: dict[str, Any] = {
    "features": torch.zeros(2, 3, 4, 4), "boxes": torch.zeros(2, 4), "index": INT, "size": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(3, 4, 4)}, "maps as"),
        ({"features": torch.zeros(2, 3, 0, 4)}, "maps as"),
        ({"features": torch.zeros(2, 3, 4, 4, dtype=torch.int32)}, "int32"),
        ({"boxes": torch.zeros(2, 5)}, "boxes as"),
        ({"boxes": torch.zeros(3, 4)}, "boxes as"),
        ({"boxes": torch.zeros(2, 4, dtype=torch.int64)}, "boxes as"),
        ({"index": INT.int()}, "int64"),
        ({"index": INT[:, None]}, "boxes as"),
        ({"turns": INT.float()}, "int64"),
        ({"turns": INT[:1]}, "same R"),
        ({"mirrors": INT}, "bool"),
        ({"size": 0}, "size of 1"),
        ({"index": INT + 2}, "0 to 1"),
        ({"index": INT - 1}, "0 to 1"),
        ({"boxes": torch.zeros(2, 4, device="meta")}, "device"),
        ({"features": torch.zeros(2, 3, 4, 4).double(), "index": INT + 2}, "0 to 1"),
    ],
)
def test_bad_input_raises_one_sentence(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        regions.pool(**(GOOD | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": torch.zeros(2, 5, 4, 4)}, "same channels"),
        ({"teacher": torch.zeros(2, 3, 4, 4).half()}, "same channels"),
        ({"teacher_boxes": torch.zeros(1, 4)}, "boxes as"),
        ({"pairs": (INT, INT[:1])}, "same R"),
        ({"pairs": (INT + 2, INT)}, "0 to 1"),
        ({"pairs": (INT, INT + 2)}, "0 to 1"),
    ],
)
def test_bad_input_of_the_loss_raises(change: dict[str, Any], message: str):
    maps, boxes = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4)
    given = {"student": maps, "teacher": maps, "student_boxes": boxes, "teacher_boxes": boxes}
    with pytest.raises(ValueError, match=message):
        regions.crop_loss(**(given | {"pairs": (INT, INT), "size": 3} | change))


def test_bin_weights():
    it = case((1, 1, 9, 13), 4, 60)
    found = cpu.bin_weights(it.boxes.float(), (9, 13), 4)
    for axis, (weights, extents) in zip((1, 0), (found[:2], found[2:]), strict=True):
        right = reference.bin_weights(it.boxes[:, axis], it.boxes[:, axis + 2], weights.shape[2], 4)
        pixel = torch.arange(weights.shape[2])
        inside = (pixel >= extents[..., :1]) & (pixel < extents[..., 1:])
        assert_close(weights.where(inside, torch.zeros(())), right, torch.float32)


def assert_close(found: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> None:
    rtol, atol = TOLERANCES[dtype]
    torch.testing.assert_close(found.double(), right, rtol=rtol, atol=atol)
