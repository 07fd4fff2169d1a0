"""The operators behind the faces: how autograd, torch.compile and autocast see them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from patchmill.kernels.matching import cpu
from patchmill.kernels.matching.kept import Kept


@torch.library.custom_op("patchmill::matching_best", mutates_args=())
def best(
    a: torch.Tensor, b: torch.Tensor, of_a: torch.Tensor, of_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Similarities and indices for the tokens of a, [R, A], and those for the tokens of b."""
    a, b, of_a, of_b = _laid_out(a, b, of_a, of_b)
    return _on(a).best(a, b, of_a, of_b)  # type: ignore[no-any-return]


@best.register_fake
def _(
    a: torch.Tensor, b: torch.Tensor, of_a: torch.Tensor, of_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    sizes = (len(of_a), a.shape[1]), (len(of_a), b.shape[1])
    of_a_token, of_b_token = (
        (a.new_empty(size, dtype=torch.float32), a.new_empty(size, dtype=torch.int64))
        for size in sizes
    )
    return *of_a_token, *of_b_token


@torch.library.custom_op("patchmill::matching_correspond", mutates_args=())
def correspond(
    student: torch.Tensor,
    teacher: torch.Tensor,
    keep: int,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
) -> tuple[
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
]:
    """Losses [R], and all of `Kept`."""
    maps = _laid_out(student, teacher, of_student, of_teacher)
    losses, kept = _on(student).correspond(*maps, keep)
    return losses, *kept


@correspond.register_fake
def _(
    student: torch.Tensor,
    teacher: torch.Tensor,
    keep: int,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    rows = len(of_student)
    found = [student.new_empty(rows, dtype=torch.float32)]
    for maps in (student, teacher):
        size = rows, maps.shape[1]
        found.append(student.new_empty(size, dtype=torch.int32))
        found.append(student.new_empty(size, dtype=torch.float32))
    scales = [maps.new_empty(maps.shape[:2], dtype=torch.float32) for maps in (student, teacher)]
    return *found, *scales


@torch.library.custom_op("patchmill::matching_pulled", mutates_args=())
def pulled(
    gradient: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    keep: int,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
    kept: list[torch.Tensor],
) -> torch.Tensor:
    """The gradient by the student of losses whose gradient is [R]."""
    maps = _laid_out(student, teacher, of_student, of_teacher)
    weight = gradient.float() * (-0.5 / keep)
    return _on(student).pulled(weight, *maps, Kept(*kept))  # type: ignore[no-any-return]


@pulled.register_fake
def _(gradient: torch.Tensor, student: torch.Tensor, *_: Any) -> torch.Tensor:
    return student.new_empty(student.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    student, teacher, ctx.keep, of_student, of_teacher = inputs
    ctx.save_for_backward(student, teacher, of_student, of_teacher, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradient: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    if gradient is None or not ctx.needs_input_grad[0]:
        return None, None, None, None, None
    student, teacher, of_student, of_teacher, *kept = ctx.saved_tensors
    made = pulled(gradient, student, teacher, ctx.keep, of_student, of_teacher, kept)
    return made, None, None, None, None


correspond.register_autograd(_backward, setup_context=_save)


def _laid_out(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def _on(tensor: torch.Tensor) -> ModuleType:
    if not tensor.is_cuda:
        return cpu
    from patchmill.kernels.matching import gpu

    return gpu
