"""Custom operators of matching: autograd, torch.compile and autocast."""

from __future__ import annotations

from typing import Any

import torch

from patchmill.kernels.common.dispatch import backend, contiguous
from patchmill.kernels.matching.saved import Saved


@torch.library.custom_op("patchmill::matching_best", mutates_args=())
def best_matches(
    a: torch.Tensor, b: torch.Tensor, a_index: torch.Tensor, b_index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Similarity and argmax for the tokens of a, [R, A], and for those of b, [R, B]."""
    args = contiguous(a, b, a_index, b_index)
    return backend(__package__, a).best_matches(*args)  # type: ignore[no-any-return]


@best_matches.register_fake
def _(
    a: torch.Tensor, b: torch.Tensor, a_index: torch.Tensor, b_index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    sizes = (len(a_index), a.shape[1]), (len(a_index), b.shape[1])
    for_a, for_b = (
        (a.new_empty(size, dtype=torch.float32), a.new_empty(size, dtype=torch.int64))
        for size in sizes
    )
    return *for_a, *for_b


@torch.library.custom_op("patchmill::matching_correspond", mutates_args=())
def correspond(
    student: torch.Tensor,
    teacher: torch.Tensor,
    keep: int,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
) -> tuple[
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
]:
    """Losses [R], and all of `Saved`."""
    args = contiguous(student, teacher, student_index, teacher_index)
    losses, saved = backend(__package__, student).correspond(*args, keep)
    return losses, *saved


@correspond.register_fake
def _(
    student: torch.Tensor,
    teacher: torch.Tensor,
    keep: int,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    pairs = len(student_index)
    results = [student.new_empty(pairs, dtype=torch.float32)]
    for maps in (student, teacher):
        size = pairs, maps.shape[1]
        results.append(student.new_empty(size, dtype=torch.int32))
        results.append(student.new_empty(size, dtype=torch.float32))
    norms = [maps.new_empty(maps.shape[:2], dtype=torch.float32) for maps in (student, teacher)]
    return *results, *norms


@torch.library.custom_op("patchmill::matching_correspond_backward", mutates_args=())
def correspond_backward(
    grad_losses: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    keep: int,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
    saved: list[torch.Tensor],
) -> torch.Tensor:
    """Gradient w.r.t. the student, from the gradients [R] w.r.t. the losses."""
    args = contiguous(student, teacher, student_index, teacher_index)
    weight = grad_losses.float() * (-0.5 / keep)
    grad = backend(__package__, student).correspond_backward(weight, *args, Saved(*saved))
    return grad  # type: ignore[no-any-return]


@correspond_backward.register_fake
def _(grad_losses: torch.Tensor, student: torch.Tensor, *_: Any) -> torch.Tensor:
    return student.new_empty(student.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    student, teacher, ctx.keep, student_index, teacher_index = inputs
    ctx.save_for_backward(student, teacher, student_index, teacher_index, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_losses: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad_losses is None or not ctx.needs_input_grad[0]:
        return None, None, None, None, None
    student, teacher, student_index, teacher_index, *saved = ctx.saved_tensors
    grad = correspond_backward(
        grad_losses, student, teacher, ctx.keep, student_index, teacher_index, saved
    )
    return grad, None, None, None, None


correspond.register_autograd(_backward, setup_context=_setup_context)
