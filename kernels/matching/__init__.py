"""Best matches between two sets of tokens, without the matrix of similarities.

A map is a set of tokens, and a pair one map of `a` with one of `b`: many pairs may share a map, and
no copy is made of it. Tokens are float32, float16 or bfloat16, one type for both; products and sums
are of float32, whatever the autocast, and so are similarities and losses. Products of float32 are
not rounded to TF32. float64 goes through the reference, with all similarities in memory.

A similarity is a cosine; a token of norm 0 has a cosine of 0 with every other, and no gradient. One
with a NaN or an infinity has a cosine of NaN with every other. NaN counts as more than any number.
Among equals the lowest index wins, as a match and for being kept.

Memory beside what is given and asked for: 4 bytes for each token, and 8 for each token of each
pair. On the CPU also for blocks of cosines and, unless they are of float32, a few maps. On a GPU
also 8 bytes for each token of b in each pair and for every 64 or 128 tokens of a. Maps whose
numbers do not lie side by side in memory are copied first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from patchmill.kernels.matching import operators, reference

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Pairs = tuple[torch.Tensor, torch.Tensor]  # ia [R] and ib [R], int64: a[ia[r]] with b[ib[r]]


class Matches(NamedTuple):
    """For each token its best match in the other map: the cosine, float32, and where, int64."""

    similarity_a: torch.Tensor  # [R, A]
    index_a: torch.Tensor  # [R, A], in [0, B)
    similarity_b: torch.Tensor  # [R, B]
    index_b: torch.Tensor  # [R, B], in [0, A)


def best(a: torch.Tensor, b: torch.Tensor, pairs: Pairs | None = None) -> Matches:
    """For every token of a, [S, A, d], its best match in b, [T, B, d], and back; no gradients.

    Without `pairs` map s is paired with map s. A map that is not there is a ValueError on the CPU;
    on a GPU, where looking would mean waiting for it, its pair's similarities are NaN.
    """
    a, b = a.detach(), b.detach()
    of_a, of_b = _checked("best", a, b, pairs)
    if a.dtype == torch.float64:
        return Matches(*reference.best(a, b, of_a, of_b))
    return Matches(*operators.best(a, b, of_a, of_b))


def correspond(
    student: torch.Tensor, teacher: torch.Tensor, keep: int, pairs: Pairs | None = None
) -> torch.Tensor:
    """GTSA's patch correspondence: a loss for each pair, float32 [R], between -1 and 1.

    Each token is matched with the best one of the other map; of each map the `keep` tokens with the
    best matches count. student is [S, A, d], teacher [T, B, d]; `pairs` as for `best`. The student
    has a gradient, by the matches that count, and the teacher never does.
    """
    teacher = teacher.detach()
    of_student, of_teacher = _checked("correspond", student, teacher, pairs)
    most = min(student.shape[1], teacher.shape[1])
    if not 1 <= keep <= most:
        raise ValueError(
            f"correspond cannot keep {keep} of {student.shape[1]} tokens of the student and "
            f"{teacher.shape[1]} of the teacher: keep 1 to {most}"
        )
    if student.dtype == torch.float64:
        return reference.correspond(student, teacher, keep, of_student, of_teacher)
    found = operators.correspond(student, teacher, keep, of_student, of_teacher)
    return found[0]  # type: ignore[no-any-return]


def _checked(face: str, a: torch.Tensor, b: torch.Tensor, pairs: Pairs | None) -> Pairs:
    """The pairs, every map with the one of its number if there are none."""
    shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
    if a.ndim != 3 or b.ndim != 3 or a.shape[2] != b.shape[2] or 0 in (*a.shape[1:], *b.shape[1:]):
        raise ValueError(
            f"{face} takes maps of tokens, [S, A, d] and [T, B, d] with one d and none of A, B and "
            f"d 0, not {shapes}: flatten heights and widths, and put channels last"
        )
    if a.dtype != b.dtype or a.device != b.device:
        raise ValueError(
            f"{face} takes maps of one type on one device, not {a.dtype} on {a.device} and "
            f"{b.dtype} on {b.device}: convert one"
        )
    if a.dtype not in DTYPES:
        raise ValueError(f"{face} takes float32, float16, bfloat16 or float64, not {a.dtype}")
    if pairs is None:
        if len(a) != len(b):
            raise ValueError(f"{face} without pairs takes as many maps on both sides, not {shapes}")
        every = torch.arange(len(a), device=a.device)
        return every, every.clone()
    if len(pairs[0]) and not (len(a) and len(b)):
        raise ValueError(f"{face} cannot pair maps where there are none, in {shapes}")
    return _checked_pairs(face, a.device, *pairs)


def _checked_pairs(
    face: str, device: torch.device, of_a: torch.Tensor, of_b: torch.Tensor
) -> Pairs:
    if of_a.ndim != 1 or of_a.shape != of_b.shape or {of_a.dtype, of_b.dtype} != {torch.int64}:
        raise ValueError(
            f"{face} takes pairs as two int64 tensors [R], not {of_a.dtype} {tuple(of_a.shape)} "
            f"and {of_b.dtype} {tuple(of_b.shape)}"
        )
    if {of_a.device, of_b.device} != {device}:
        raise ValueError(
            f"{face} takes pairs on the device of the maps, {device}, not on {of_a.device} and "
            f"{of_b.device}: move them there"
        )
    return of_a, of_b
