"""On the GPU: a tile of cosines lives in registers, and only the best of it leaves them.

One pass: a block finds the final matches of its tokens of a, and for those of b the best among its
tokens of a, a part that a second kernel puts together. A second pass with a and b exchanged would
need no parts, but multiply everything twice to save 8 bytes for each token of b and tile: a 32nd or
64th of the cosines. Two runs on one kind of GPU are equal to the bit.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
import triton

from patchmill.kernels.matching import gpu_kernels as kernels
from patchmill.kernels.matching.kept import Kept

COMPILER = {"enable_fp_fusion": True}
PRECISION = "tf32x3"  # three products of TF32 for one of float32: nearly all of its digits
MEASURED = 4096  # numbers in a block of `measure`
SETTLED = 1024  # tokens in a block of `settle`
CHOSEN = 64  # tokens that are compared with as many at a time
SEARCHED = 256  # partners of a map that `pull` looks through at a time


class Blocks(NamedTuple):
    rows: int
    columns: int
    deep: int  # numbers of a token that are multiplied at a time
    num_warps: int
    num_stages: int


# Of `match`, by whether a map of a has more than 64 tokens, and numbers have 4 bytes: the largest
# that need no more registers than there are.
BLOCKS = {
    (False, False): Blocks(64, 128, 64, 4, 3),
    (False, True): Blocks(64, 64, 32, 4, 3),
    (True, False): Blocks(128, 128, 64, 8, 3),
    (True, True): Blocks(128, 64, 32, 8, 3),
}


def of_match(tokens: int, dtype: torch.dtype) -> Blocks:
    return BLOCKS[tokens > 64, dtype.itemsize == 4]


def of_measure(d: int) -> dict[str, int]:
    wide = min(triton.next_power_of_2(d), MEASURED // 4)
    return {"D": d, "WIDE": wide, "ROWS": MEASURED // wide, "num_warps": 4}


def of_pull(d: int) -> dict[str, int]:
    wide = triton.next_power_of_2(d)
    warps = min(8, max(1, wide // 512))
    return {"D": d, "WIDE": wide, "BLOCK": SEARCHED, "num_warps": warps}


def best(
    a: torch.Tensor, b: torch.Tensor, of_a: torch.Tensor, of_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    with _on(a):
        return search(a, b, of_a, of_b, scales(a), scales(b), torch.int64)


def correspond(
    student: torch.Tensor,
    teacher: torch.Tensor,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
    keep: int,
) -> tuple[torch.Tensor, Kept]:
    with _on(student):
        measured = scales(student), scales(teacher)
        best_a, partner_a, best_b, partner_b = search(
            student, teacher, of_student, of_teacher, *measured, torch.int32
        )
        losses = best_a.new_empty(len(of_student))
        if len(losses):
            kernels.choose[(len(losses),)](
                best_a, partner_a, best_b, partner_b, losses,
                A=best_a.shape[1], B=best_b.shape[1], KEEP=keep, BLOCK=CHOSEN, num_warps=4,
                **COMPILER,
            )  # fmt: skip
    return losses, Kept(partner_a, best_a, partner_b, best_b, *measured)


def scales(maps: torch.Tensor) -> torch.Tensor:
    """What makes a token's norm 1: 0 for those of norm 0, NaN where there is no finite norm."""
    count, tokens, d = maps.shape
    found = maps.new_empty((count, tokens), dtype=torch.float32)
    if found.numel():
        shape = of_measure(d)
        blocks = triton.cdiv(found.numel(), shape["ROWS"])
        kernels.measure[(blocks,)](maps, found, found.numel(), **shape, **COMPILER)
    return found


def search(
    a: torch.Tensor,
    b: torch.Tensor,
    of_a: torch.Tensor,
    of_b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    places: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cosines [R, A] and where, as `places`, of the tokens of a, and those of the tokens of b."""
    pairs, tokens_a, tokens_b = len(of_a), a.shape[1], b.shape[1]
    block = of_match(tokens_a, a.dtype)
    tiles = triton.cdiv(tokens_a, block.rows)
    best_a, best_b = (scale_a.new_empty((pairs, it)) for it in (tokens_a, tokens_b))
    place_a, place_b = (torch.empty_like(it, dtype=places) for it in (best_a, best_b))
    if pairs == 0:
        return best_a, place_a, best_b, place_b
    parts = scale_a.new_empty((pairs, tiles, tokens_b))
    part_places = torch.empty_like(parts, dtype=torch.int32)
    kernels.match[(pairs * tiles,)](
        a, b, scale_a, scale_b, of_a, of_b, best_a, place_a, parts, part_places, len(a), len(b),
        A=tokens_a, B=tokens_b, D=a.shape[2],
        ROWS=block.rows, COLUMNS=block.columns, DEEP=block.deep, PRECISION=PRECISION,
        num_warps=block.num_warps, num_stages=block.num_stages, **COMPILER,
    )  # fmt: skip
    kernels.settle[(triton.cdiv(best_b.numel(), SETTLED),)](
        parts, part_places, best_b, place_b, best_b.numel(),
        TILES=tiles, B=tokens_b, BLOCK=SETTLED, num_warps=4, **COMPILER,
    )  # fmt: skip
    return best_a, place_a, best_b, place_b


def pulled(
    weight: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
    kept: Kept,
) -> torch.Tensor:
    """As `cpu.pulled`: a block makes the gradient of one token."""
    maps, tokens, d = student.shape
    out = torch.empty_like(student)
    if out.numel() == 0:
        return out
    by_map, order = of_student.sort(stable=True)
    ends = torch.searchsorted(by_map, torch.arange(maps + 1, device=student.device))
    with _on(student):
        kernels.pull[(maps * tokens,)](
            student, teacher, kept.scale_a, kept.scale_b, of_teacher, order, ends, weight,
            kept.partner_a, kept.similarity_a, kept.partner_b, kept.similarity_b, out, len(teacher),
            A=tokens, B=teacher.shape[1], **of_pull(d), **COMPILER,
        )  # fmt: skip
    return out


def _on(tensor: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
