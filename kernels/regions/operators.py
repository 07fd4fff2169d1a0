"""The operators behind the faces: how autograd, torch.compile and autocast see them.

Maps are [N, H, W, C] and pooled regions [R, size, size, C], both contiguous. A pose is a number of
quarter turns, and 4 more for a mirror before them.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from patchmill.kernels.regions import cpu


@torch.library.custom_op("patchmill::regions_pool", mutates_args=())
def pool(
    maps: torch.Tensor, boxes: torch.Tensor, index: torch.Tensor, pose: torch.Tensor, size: int
) -> torch.Tensor:
    return _on(maps).pool(*_laid_out(maps, boxes, index, pose), size)  # type: ignore[no-any-return]


@pool.register_fake
def _(
    maps: torch.Tensor, boxes: torch.Tensor, index: torch.Tensor, pose: torch.Tensor, size: int
) -> torch.Tensor:
    return maps.new_empty(len(boxes), size, size, maps.shape[3])


@torch.library.custom_op("patchmill::regions_unpool", mutates_args=())
def unpool(
    gradient: torch.Tensor,
    boxes: torch.Tensor,
    index: torch.Tensor,
    pose: torch.Tensor,
    count: int,
    height: int,
    width: int,
) -> torch.Tensor:
    """The gradient by `count` maps of what `pool` made of them."""
    given = _laid_out(gradient, boxes, index, pose)
    return _on(gradient).unpool(*given, (count, height, width))  # type: ignore[no-any-return]


@unpool.register_fake
def _(
    gradient: torch.Tensor,
    boxes: torch.Tensor,
    index: torch.Tensor,
    pose: torch.Tensor,
    count: int,
    height: int,
    width: int,
) -> torch.Tensor:
    return gradient.new_empty(count, height, width, gradient.shape[3])


def _save_pool(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    maps, boxes, index, pose, _ = inputs
    ctx.save_for_backward(boxes, index, pose)
    ctx.shape = maps.shape[:3]


def _pool_backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    return unpool(gradient, *ctx.saved_tensors, *ctx.shape), None, None, None, None


pool.register_autograd(_pool_backward, setup_context=_save_pool)


@torch.library.custom_op("patchmill::regions_compare", mutates_args=())
def compare(
    student: torch.Tensor,
    teacher: torch.Tensor,
    in_student: torch.Tensor,
    in_teacher: torch.Tensor,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
    pose: torch.Tensor,
    size: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses [R], and for each cell, [R, size * size], `toward` and `along`, all float32.

    A cell's cosine has the gradient  toward t - along s  by the student's channels s.
    """
    given = _laid_out(student, teacher, in_student, in_teacher, of_student, of_teacher, pose)
    return _on(student).compare(*given, size)  # type: ignore[no-any-return]


@compare.register_fake
def _(
    student: torch.Tensor, teacher: torch.Tensor, in_student: torch.Tensor, *others: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    regions, size = len(in_student), others[-1]
    toward, along = (student.new_empty(regions, size * size, dtype=torch.float32) for _ in range(2))
    return student.new_empty(regions, dtype=torch.float32), toward, along


@torch.library.custom_op("patchmill::regions_slope", mutates_args=())
def slope(
    gradient: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    in_student: torch.Tensor,
    in_teacher: torch.Tensor,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
    pose: torch.Tensor,
    toward: torch.Tensor,
    along: torch.Tensor,
    size: int,
) -> torch.Tensor:
    """The gradient by the student of losses whose gradient is [R]."""
    weight = gradient.float() / -(size * size)
    maps = _laid_out(student, teacher, in_student, in_teacher, of_student, of_teacher, pose)
    return _on(student).slope(weight, *maps, toward, along, size)  # type: ignore[no-any-return]


@slope.register_fake
def _(gradient: torch.Tensor, student: torch.Tensor, *_: Any) -> torch.Tensor:
    return student.new_empty(student.shape)


def _save_compare(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    *given, ctx.size = inputs
    ctx.save_for_backward(*given, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _compare_backward(ctx: Any, gradient: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    if gradient is None or not ctx.needs_input_grad[0]:
        return (None,) * 8
    return slope(gradient, *ctx.saved_tensors, ctx.size), *(None,) * 7


compare.register_autograd(_compare_backward, setup_context=_save_compare)


def _laid_out(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def _on(tensor: torch.Tensor) -> ModuleType:
    if not tensor.is_cuda:
        return cpu
    from patchmill.kernels.regions import gpu

    return gpu
