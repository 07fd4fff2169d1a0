"""Reference implementation of matching in plain PyTorch, with all similarities in memory."""

from __future__ import annotations

import torch


def best_matches(
    a: torch.Tensor, b: torch.Tensor, a_index: torch.Tensor, b_index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """max and argmax over j, then over i, of s_r[i, j] = cos(a[a_index[r], i], b[b_index[r], j]).

    Ties go to the first; NaN ranks above every number.
    """
    similarity = unit(a)[a_index] @ unit(b)[b_index].mT
    return *similarity.max(2), *similarity.max(1)


def correspond(
    student: torch.Tensor,
    teacher: torch.Tensor,
    keep: int,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
) -> torch.Tensor:
    """For pair r  -(mean of the `keep` largest max_j s_r[i, j]  +  those of max_i s_r[i, j]) / 2.

    Ties go to the first. The teacher is a constant.
    """
    of_student, _, of_teacher, _ = best_matches(
        student, teacher.detach(), student_index, teacher_index
    )
    return -(top_k(of_student, keep).mean(1) + top_k(of_teacher, keep).mean(1)) / 2


def top_k(similarity: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest of each row; ties go to the first (torch.topk does not specify which)."""
    return similarity.sort(dim=1, descending=True, stable=True).values[:, :k]


def unit(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens divided by their norm; zeros, without a gradient, if the norm is 0."""
    norm = tokens.norm(dim=2, keepdim=True)
    return tokens / norm.masked_fill(norm == 0, torch.inf)
