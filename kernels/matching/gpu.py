"""GPU backend: a tile of cosines lives in registers, and only its maxima are written.

One pass: a program finds the final matches of its tokens of a and, for those of b, the best among
its tokens of a, which a second kernel reduces over the tiles. A second pass with a and b swapped
would need no partial results, but would multiply everything twice to save 8 bytes per token of b
and tile: a 32nd or 64th of the cosines. Two runs on the same GPU model are bit-identical.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from patchmill.kernels.common.dispatch import device_guard
from patchmill.kernels.matching import gpu_kernels as kernels
from patchmill.kernels.matching.saved import Saved

COMPILER = {"enable_fp_fusion": True}
PRECISION = "tf32x3"  # three TF32 products for one in float32: nearly all of its digits
NORM_TILE = 4096  # elements in a tile of `inverse_norms`
REDUCE_BLOCK = 1024  # tokens in a block of `reduce_tiles`
TOP_K_BLOCK = 64  # `top_k_loss` compares this many tokens with this many at a time
SEARCH_BLOCK = 256  # matches that `backward_token` scans at a time


class Blocks(NamedTuple):
    m: int  # tokens of a
    n: int  # tokens of b at a time
    k: int  # elements of a token multiplied at a time
    num_warps: int
    num_stages: int


# For `match_tile`, keyed by whether a map of a has more than 64 tokens and whether elements have 4
# bytes: the largest blocks that fit in registers.
BLOCKS = {
    (False, False): Blocks(64, 128, 64, 4, 3),
    (False, True): Blocks(64, 64, 32, 4, 3),
    (True, False): Blocks(128, 128, 64, 8, 3),
    (True, True): Blocks(128, 64, 32, 8, 3),
}


def match_blocks(tokens: int, dtype: torch.dtype) -> Blocks:
    """Block sizes of `match_tile` for maps of a with this many tokens."""
    return BLOCKS[tokens > 64, dtype.itemsize == 4]


def norm_blocks(d: int) -> dict[str, int]:
    """Launch options of `inverse_norms`."""
    width = min(triton.next_power_of_2(d), NORM_TILE // 4)
    return {"D": d, "BLOCK_D": width, "BLOCK_ROWS": NORM_TILE // width, "num_warps": 4}


def backward_blocks(d: int) -> dict[str, int]:
    """Launch options of `backward_token`."""
    width = triton.next_power_of_2(d)
    warps = min(8, max(1, width // 512))
    return {"D": d, "BLOCK_D": width, "BLOCK": SEARCH_BLOCK, "num_warps": warps}


def best_matches(
    a: torch.Tensor, b: torch.Tensor, a_index: torch.Tensor, b_index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Similarities and argmax; same contract as `cpu.best_matches`."""
    with device_guard(a):
        return search(a, b, a_index, b_index, inverse_norms(a), inverse_norms(b), torch.int64)


def correspond(
    student: torch.Tensor,
    teacher: torch.Tensor,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
    keep: int,
) -> tuple[torch.Tensor, Saved]:
    """Losses, and the tensors that backward needs; same contract as `cpu.correspond`."""
    with device_guard(student):
        norms = inverse_norms(student), inverse_norms(teacher)
        max_a, match_a, max_b, match_b = search(
            student, teacher, student_index, teacher_index, *norms, torch.int32
        )
        losses = max_a.new_empty(len(student_index))
        if len(losses):
            kernels.top_k_loss[(len(losses),)](
                max_a, match_a, max_b, match_b, losses,
                A=max_a.shape[1], B=max_b.shape[1], KEEP=keep, BLOCK=TOP_K_BLOCK, num_warps=4,
                **COMPILER,
            )  # fmt: skip
    return losses, Saved(match_a, max_a, match_b, max_b, *norms)


def inverse_norms(maps: torch.Tensor) -> torch.Tensor:
    """1 / norm of each token: 0 for a norm of 0, NaN if the norm is not finite."""
    count, tokens, d = maps.shape
    norms = maps.new_empty((count, tokens), dtype=torch.float32)
    if norms.numel():
        shape = norm_blocks(d)
        programs = triton.cdiv(norms.numel(), shape["BLOCK_ROWS"])
        kernels.inverse_norms[(programs,)](maps, norms, norms.numel(), **shape, **COMPILER)
    return norms


def search(
    a: torch.Tensor,
    b: torch.Tensor,
    a_index: torch.Tensor,
    b_index: torch.Tensor,
    inverse_norm_a: torch.Tensor,
    inverse_norm_b: torch.Tensor,
    index_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Similarity and argmax of the tokens of a, [R, A], and those of the tokens of b, [R, B]."""
    pairs, tokens_a, tokens_b = len(a_index), a.shape[1], b.shape[1]
    block = match_blocks(tokens_a, a.dtype)
    tiles = triton.cdiv(tokens_a, block.m)
    max_a, max_b = (inverse_norm_a.new_empty((pairs, count)) for count in (tokens_a, tokens_b))
    argmax_a, argmax_b = (torch.empty_like(best, dtype=index_dtype) for best in (max_a, max_b))
    if pairs == 0:
        return max_a, argmax_a, max_b, argmax_b
    tile_max = inverse_norm_a.new_empty((pairs, tiles, tokens_b))
    tile_argmax = torch.empty_like(tile_max, dtype=torch.int32)
    kernels.match_tile[(pairs * tiles,)](
        a, b, inverse_norm_a, inverse_norm_b, a_index, b_index,
        max_a, argmax_a, tile_max, tile_argmax, len(a), len(b),
        A=tokens_a, B=tokens_b, D=a.shape[2],
        BLOCK_M=block.m, BLOCK_N=block.n, BLOCK_K=block.k, PRECISION=PRECISION,
        num_warps=block.num_warps, num_stages=block.num_stages, **COMPILER,
    )  # fmt: skip
    kernels.reduce_tiles[(triton.cdiv(max_b.numel(), REDUCE_BLOCK),)](
        tile_max, tile_argmax, max_b, argmax_b, max_b.numel(),
        TILES=tiles, B=tokens_b, BLOCK=REDUCE_BLOCK, num_warps=4, **COMPILER,
    )  # fmt: skip
    return max_a, argmax_a, max_b, argmax_b


def correspond_backward(
    weight: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
    saved: Saved,
) -> torch.Tensor:
    """Gradient w.r.t. the student, one program per token; contract of `cpu.correspond_backward`."""
    maps, tokens, d = student.shape
    out = torch.empty_like(student)
    if out.numel() == 0:
        return out
    by_map, order = student_index.sort(stable=True)
    offsets = torch.searchsorted(by_map, torch.arange(maps + 1, device=student.device))
    with device_guard(student):
        kernels.backward_token[(maps * tokens,)](
            student, teacher, saved.inverse_norm_a, saved.inverse_norm_b,
            teacher_index, order, offsets, weight,
            saved.match_a, saved.similarity_a, saved.match_b, saved.similarity_b,
            out, len(teacher),
            A=tokens, B=teacher.shape[1], **backward_blocks(d), **COMPILER,
        )  # fmt: skip
    return out
