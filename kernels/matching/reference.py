"""What matching is: plain torch, every similarity in memory, differentiable by autograd."""

from __future__ import annotations

import torch


def best(
    a: torch.Tensor, b: torch.Tensor, of_a: torch.Tensor, of_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """With s_r[i, j] = cos(a[of_a[r], i], b[of_b[r], j]): max_j and argmax_j, max_i and argmax_i.

    Of equals the first; a NaN is more than any number.
    """
    similarity = unit(a)[of_a] @ unit(b)[of_b].mT
    return *similarity.max(2), *similarity.max(1)


def correspond(
    student: torch.Tensor,
    teacher: torch.Tensor,
    keep: int,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
) -> torch.Tensor:
    """Of pair r:  -(mean of the `keep` largest max_j s_r[i, j]  +  those of max_i s_r[i, j]) / 2.

    Of equals the first are kept. The teacher is a constant.
    """
    by_student, _, by_teacher, _ = best(student, teacher.detach(), of_student, of_teacher)
    return -(kept(by_student, keep).mean(1) + kept(by_teacher, keep).mean(1)) / 2


def kept(similarity: torch.Tensor, keep: int) -> torch.Tensor:
    return similarity.sort(dim=1, descending=True, stable=True).values[:, :keep]


def unit(tokens: torch.Tensor) -> torch.Tensor:
    """Of norm 1, or 0: those have no direction, and no gradient."""
    norm = tokens.norm(dim=2, keepdim=True)
    return tokens / norm.masked_fill(norm == 0, torch.inf)
