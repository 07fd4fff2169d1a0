"""GPU backend of the bag loss: one program per bag or, if bags are few, several (split-K).

Splits are reduced in a fixed order: two runs on the same GPU model are bit-identical. Extra memory:
8 d bytes per bag and, if bags are few, per program, with PROGRAMS_PER_SM programs on each
multiprocessor.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from patchmill.kernels.bags import gpu_kernels as kernels
from patchmill.kernels.common.dispatch import (
    MIN_SHARED,
    device_guard,
    multiprocessors,
    shared_memory,
)

PROGRAMS_PER_SM = 4  # per multiprocessor
MIN_SPLIT_ROWS = 16  # rows of a split: more is read than the 8 d bytes that are written for it
TILE = 4096  # elements
SCRATCH = 1024  # bytes of shared memory for sums over warps
INTERPRETED_MULTIPROCESSORS = 4
COMPILER = {"enable_fp_fusion": True}


class Blocks(NamedTuple):
    d: int  # columns, at least d
    rows: int
    num_warps: int


def blocks(views: int, d: int) -> Blocks:
    """Tile size and warps for rows of d elements: at most 32 elements per thread."""
    width = triton.next_power_of_2(d)
    rows = min(triton.next_power_of_2(views), max(1, TILE // width))
    return Blocks(width, rows, min(16, max(1, rows * width // 1024, width // 512)))


def stages(block: Blocks, dtype: torch.dtype, shared: int) -> int:
    """3 if two tiles fit into `shared` bytes of shared memory, else 1."""
    tile = block.rows * block.d * dtype.itemsize
    return 3 if 2 * tile + SCRATCH <= shared else 1


def split_rows(views: int, bags: int, least: int, device: torch.device) -> int:
    """Rows per program: a whole bag, or fewer if there are too few bags to fill the GPU."""
    processors = multiprocessors(device, INTERPRETED_MULTIPROCESSORS)
    each = max(1, PROGRAMS_PER_SM * processors // bags)
    return min(views, max(least, -(-views // each)))


def bag_loss(z: torch.Tensor, saved: torch.Tensor) -> torch.Tensor:
    """Compute the loss, and fill `saved`, [B, 2, d] or [0, 2, d], for the backward pass."""
    views, bags, d = z.shape
    block_d, rows, num_warps = block = blocks(views, d)
    loop = {"BLOCK_ROWS": rows, "STAGES": _stages(block, z)}
    losses = torch.empty(bags, dtype=torch.float32, device=z.device)
    scale, save = -1 / (views * bags), len(saved) > 0
    shape = {"D": d, "BLOCK_D": block_d, "num_warps": num_warps, **COMPILER}
    split_size = split_rows(views, bags, MIN_SPLIT_ROWS, z.device)
    splits = -(-views // split_size)
    with device_guard(z):
        if splits == 1:
            kernels.forward_bag[(bags,)](
                z, saved, losses, *z.stride()[:2], views, scale, SAVE=save, **loop, **shape
            )
        else:
            partial = torch.empty(splits, bags, 2, d, dtype=torch.float32, device=z.device)
            kernels.forward_split[(bags, splits)](
                z, partial, *z.stride()[:2], views, split_size, **loop, **shape
            )
            kernels.reduce_splits[(bags,)](
                partial, saved, losses, views, splits, scale, SAVE=save, **shape
            )
        return losses.sum()


def bag_loss_backward(
    grad_loss: torch.Tensor, z: torch.Tensor, saved: torch.Tensor
) -> torch.Tensor:
    """Gradient w.r.t. z, in its dtype; the bags' vectors are recomputed unless they were saved."""
    views, bags, d = z.shape
    block_d, rows, num_warps = block = blocks(views, d)
    out, has_saved = torch.empty_like(z), len(saved) > 0
    split_size = split_rows(views, bags, rows, z.device) if has_saved else views
    strides = (*z.stride()[:2], *out.stride()[:2])
    with device_guard(z):
        kernels.backward_split[(bags, -(-views // split_size))](
            z, saved, grad_loss, out, *strides, views, split_size, -1 / (views * bags),
            D=d, BLOCK_D=block_d, BLOCK_ROWS=rows, STAGES=_stages(block, z), SAVED=has_saved,
            num_warps=num_warps, **COMPILER,
        )  # fmt: skip
    return out


def _stages(block: Blocks, z: torch.Tensor) -> int:
    return stages(block, z.dtype, shared_memory(z.device, MIN_SHARED))
