"""Best matches between two sets of tokens, without the matrix of similarities in memory.

A map is a set of tokens, and a pair is one map of `a` with one of `b`; many pairs may share a map,
which is not copied. Tokens are float32, float16 or bfloat16, one dtype for both; products and sums
are accumulated in float32, even under autocast, and similarities and losses are float32. Products
of float32 are not rounded to TF32. float64 runs the reference, with all similarities in memory.

A similarity is a cosine. A token of norm 0 has a cosine of 0 with every other, and no gradient; one
with a NaN or an infinity has a cosine of NaN with every other. NaN ranks above every number. Ties
go to the lowest index, as a match and in the top-k.

Extra memory: 4 bytes per token, and 8 per token of each pair. On a CPU also blocks of cosines and,
unless the maps are float32, a few maps. On a GPU also 8 bytes per token of b in each pair, for
every 64 or 128 tokens of a. Non-contiguous maps are copied first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from patchmill.kernels.matching import operators, reference

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Pairs = tuple[
    torch.Tensor, torch.Tensor
]  # a_index and b_index, [R] int64: a[a_index[r]] with b[..]


class Matches(NamedTuple):
    """Best match of each token in the other map: cosine (float32) and index (int64)."""

    similarity_a: torch.Tensor  # [R, A]
    index_a: torch.Tensor  # [R, A], in [0, B)
    similarity_b: torch.Tensor  # [R, B]
    index_b: torch.Tensor  # [R, B], in [0, A)


def best_matches(a: torch.Tensor, b: torch.Tensor, pairs: Pairs | None = None) -> Matches:
    """Best match in b, [T, B, d], of every token of a, [S, A, d], and vice versa; no gradients.

    Without `pairs`, map s is paired with map s. A map index out of range raises ValueError on a
    CPU; on a GPU, where checking would synchronise, its pair's similarities are NaN.
    """
    a, b = a.detach(), b.detach()
    a_index, b_index = _checked("best_matches", a, b, pairs)
    if a.dtype == torch.float64:
        return Matches(*reference.best_matches(a, b, a_index, b_index))
    return Matches(*operators.best_matches(a, b, a_index, b_index))


def correspond(
    student: torch.Tensor, teacher: torch.Tensor, keep: int, pairs: Pairs | None = None
) -> torch.Tensor:
    """GTSA's patch correspondence: one loss for each pair, float32 [R], between -1 and 1.

    Each token is matched with the best one of the other map; the `keep` tokens of each map with the
    best matches count. student is [S, A, d], teacher [T, B, d]; `pairs` as for `best_matches`. The
    student gets a gradient through the matches that count, the teacher none.
    """
    teacher = teacher.detach()
    student_index, teacher_index = _checked("correspond", student, teacher, pairs)
    most = min(student.shape[1], teacher.shape[1])
    if not 1 <= keep <= most:
        raise ValueError(
            f"correspond cannot keep {keep} of {student.shape[1]} tokens of the student and "
            f"{teacher.shape[1]} of the teacher: keep 1 to {most}"
        )
    if student.dtype == torch.float64:
        return reference.correspond(student, teacher, keep, student_index, teacher_index)
    results = operators.correspond(student, teacher, keep, student_index, teacher_index)
    return results[0]  # type: ignore[no-any-return]


def _checked(function: str, a: torch.Tensor, b: torch.Tensor, pairs: Pairs | None) -> Pairs:
    """Validated pairs; by default each map of a with the one of b at the same index."""
    shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
    if a.ndim != 3 or b.ndim != 3 or a.shape[2] != b.shape[2] or 0 in (*a.shape[1:], *b.shape[1:]):
        raise ValueError(
            f"{function} takes maps of tokens, [S, A, d] and [T, B, d] with one d and no empty "
            f"dimension, not {shapes}: flatten heights and widths, and put channels last"
        )
    if a.dtype != b.dtype or a.device != b.device:
        raise ValueError(
            f"{function} takes maps of one type on one device, not {a.dtype} on {a.device} and "
            f"{b.dtype} on {b.device}: convert one"
        )
    if a.dtype not in DTYPES:
        raise ValueError(f"{function} takes float32, float16, bfloat16 or float64, not {a.dtype}")
    if pairs is None:
        if len(a) != len(b):
            raise ValueError(
                f"{function} without pairs takes as many maps on both sides, not {shapes}"
            )
        index = torch.arange(len(a), device=a.device)
        return index, index.clone()
    if len(pairs[0]) and not (len(a) and len(b)):
        raise ValueError(f"{function} cannot pair maps of an empty set, in {shapes}")
    return _checked_pairs(function, a.device, *pairs)


def _checked_pairs(
    function: str, device: torch.device, a_index: torch.Tensor, b_index: torch.Tensor
) -> Pairs:
    if (
        a_index.ndim != 1
        or a_index.shape != b_index.shape
        or {a_index.dtype, b_index.dtype} != {torch.int64}
    ):
        raise ValueError(
            f"{function} takes pairs as two int64 tensors [R], not {a_index.dtype} "
            f"{tuple(a_index.shape)} and {b_index.dtype} {tuple(b_index.shape)}"
        )
    if {a_index.device, b_index.device} != {device}:
        raise ValueError(
            f"{function} takes pairs on the device of the maps, {device}, not on {a_index.device} "
            f"and {b_index.device}: move them there"
        )
    return a_index, b_index
