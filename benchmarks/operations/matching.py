"""GTSA's token correspondence, against the full similarity matrix."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from patchmill.benchmarks.operations.case import Case, Floor, noise, trio
from patchmill.kernels import matching


def cases(device: torch.device, dtype: torch.dtype) -> list[Case]:
    images = 256 if device.type == "cuda" else 4
    return [
        _correspond(images, 2, 196, 98, device, dtype),
        *(
            _correspond(images, 16, 36, 18, device, pair_dtype)
            for pair_dtype in dict.fromkeys((dtype, torch.bfloat16))
        ),
    ]


def _correspond(
    images: int, each: int, tokens: int, keep: int, device: torch.device, dtype: torch.dtype
) -> Case:
    """`each` pairs per image: views of `tokens` tokens with the two global views, of 196."""
    views = max(each // 2, 1) * images
    student = noise(views, tokens, 768, device=device, dtype=dtype).requires_grad_()
    teacher = noise(2 * images, 196, 768, device=device, dtype=dtype, seed=1)
    pair = torch.arange(images * each, device=device)
    student_index, teacher_index = pair % views, pair // each * 2 + pair % 2

    def ours(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return matching.correspond(student, teacher, keep, (student_index, teacher_index))

    def eager(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        a, b = normalize(student, dim=-1)[student_index], normalize(teacher, dim=-1)[teacher_index]
        similarity = a @ b.mT
        best_of_student = similarity.max(2).values.topk(keep, dim=1).values.mean(1)
        best_of_teacher = similarity.max(1).values.topk(keep, dim=1).values.mean(1)
        return -(best_of_student + best_of_teacher) / 2

    moved = (2 * student.numel() + teacher.numel()) * student.element_size()
    floor = Floor(moved, 2 * len(pair) * tokens * 196 * 768)
    shape = f"{len(pair)} pairs, {tokens} x 196 tokens, d 768"
    shape += ", bfloat16" * (dtype == torch.bfloat16)
    return Case("correspond", shape, trio(ours, eager, student, teacher, wanted=[student]), floor)
