"""Custom operators of pooling and the crop loss: autograd, torch.compile and autocast.

Maps are [N, H, W, C] and pooled regions [R, size, size, C], both contiguous. A pose is a number of
counter-clockwise quarter turns, plus 4 for a left-right mirror before them.
"""

from __future__ import annotations

from typing import Any

import torch

from patchmill.kernels.common.dispatch import backend, contiguous
from patchmill.kernels.regions.pairs import RegionPairs

# ---------------------------------------------------------------------------------------- pooling


@torch.library.custom_op("patchmill::regions_pool", mutates_args=())
def pool(
    maps: torch.Tensor, boxes: torch.Tensor, index: torch.Tensor, pose: torch.Tensor, size: int
) -> torch.Tensor:
    """Pooled regions [R, size, size, C], in the dtype of the maps."""
    args = contiguous(maps, boxes, index, pose)
    return backend(__package__, maps).pool(*args, size)  # type: ignore[no-any-return]


@pool.register_fake
def _(
    maps: torch.Tensor, boxes: torch.Tensor, index: torch.Tensor, pose: torch.Tensor, size: int
) -> torch.Tensor:
    return maps.new_empty(len(boxes), size, size, maps.shape[3])


@torch.library.custom_op("patchmill::regions_pool_backward", mutates_args=())
def pool_backward(
    grad_pooled: torch.Tensor,
    boxes: torch.Tensor,
    index: torch.Tensor,
    pose: torch.Tensor,
    count: int,
    height: int,
    width: int,
) -> torch.Tensor:
    """Gradient w.r.t. the `count` maps."""
    args = contiguous(grad_pooled, boxes, index, pose)
    shape = count, height, width
    grad = backend(__package__, grad_pooled).pool_backward(*args, shape)
    return grad  # type: ignore[no-any-return]


@pool_backward.register_fake
def _(
    grad_pooled: torch.Tensor,
    boxes: torch.Tensor,
    index: torch.Tensor,
    pose: torch.Tensor,
    count: int,
    height: int,
    width: int,
) -> torch.Tensor:
    return grad_pooled.new_empty(count, height, width, grad_pooled.shape[3])


def _setup_pool(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    maps, boxes, index, pose, _ = inputs
    ctx.save_for_backward(boxes, index, pose)
    ctx.shape = maps.shape[:3]


def _backward_pool(ctx: Any, grad_pooled: torch.Tensor) -> tuple[Any, ...]:
    return pool_backward(grad_pooled, *ctx.saved_tensors, *ctx.shape), None, None, None, None


pool.register_autograd(_backward_pool, setup_context=_setup_pool)


# --------------------------------------------------------------------------------------- crop loss


@torch.library.custom_op("patchmill::regions_crop_loss", mutates_args=())
def crop_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    student_boxes: torch.Tensor,
    teacher_boxes: torch.Tensor,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
    pose: torch.Tensor,
    size: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses [R] and, for each bin, `scale_t` and `scale_s`, [R, size * size]; all float32.

    The gradient of a bin's cosine w.r.t. the student's channels s is  scale_t t - scale_s s.
    """
    pairs = RegionPairs(
        *contiguous(
            student, teacher, student_boxes, teacher_boxes, student_index, teacher_index, pose
        )
    )
    return backend(__package__, student).crop_loss(pairs, size)  # type: ignore[no-any-return]


@crop_loss.register_fake
def _(
    student: torch.Tensor, teacher: torch.Tensor, student_boxes: torch.Tensor, *others: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    regions, bins = len(student_boxes), others[-1] ** 2
    scale_t, scale_s = (student.new_empty(regions, bins, dtype=torch.float32) for _ in range(2))
    return student.new_empty(regions, dtype=torch.float32), scale_t, scale_s


@torch.library.custom_op("patchmill::regions_crop_loss_backward", mutates_args=())
def crop_loss_backward(
    grad_losses: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    student_boxes: torch.Tensor,
    teacher_boxes: torch.Tensor,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
    pose: torch.Tensor,
    scale_t: torch.Tensor,
    scale_s: torch.Tensor,
    size: int,
) -> torch.Tensor:
    """Gradient w.r.t. the student, from the gradients [R] w.r.t. the losses."""
    weight = grad_losses.float() / -(size * size)
    pairs = RegionPairs(
        *contiguous(
            student, teacher, student_boxes, teacher_boxes, student_index, teacher_index, pose
        )
    )
    grad = backend(__package__, student).crop_loss_backward(weight, pairs, scale_t, scale_s, size)
    return grad  # type: ignore[no-any-return]


@crop_loss_backward.register_fake
def _(grad_losses: torch.Tensor, student: torch.Tensor, *_: Any) -> torch.Tensor:
    return student.new_empty(student.shape)


def _setup_crop_loss(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    *pairs, ctx.size = inputs
    ctx.save_for_backward(*pairs, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward_crop_loss(ctx: Any, grad_losses: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad_losses is None or not ctx.needs_input_grad[0]:
        return (None,) * 8
    return crop_loss_backward(grad_losses, *ctx.saved_tensors, ctx.size), *(None,) * 7


crop_loss.register_autograd(_backward_crop_loss, setup_context=_setup_crop_loss)
