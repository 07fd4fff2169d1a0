"""Bags on the GPU: one program a bag, or several where bags are few, put together in a fixed order.

Two runs on one kind of GPU are equal to the bit. Memory beside the results: 8 d bytes for each bag
and, where they are few, for each program, of which there are PROGRAMS_EACH a multiprocessor.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
import triton

from patchmill.kernels.bags import gpu_kernels as kernels

PROGRAMS_EACH = 4  # a multiprocessor's
LEAST_SPAN = 16  # rows: more than the 8 d bytes that are written for it are read
TILE = 4096  # numbers
INTERPRETED_MULTIPROCESSORS = 4
COMPILER = {"enable_fp_fusion": True}


class Blocks(NamedTuple):
    wide: int
    rows: int
    num_warps: int


def blocks(views: int, d: int) -> Blocks:
    """The tile for rows of d numbers, and its warps: at most 32 numbers of it a thread."""
    wide = triton.next_power_of_2(d)
    rows = min(triton.next_power_of_2(views), max(1, TILE // wide))
    return Blocks(wide, rows, min(16, max(1, rows * wide // 1024, wide // 512)))


def span_of(views: int, bags: int, least: int, device: torch.device) -> int:
    """Rows for one program: all of a bag, or fewer where bags are too few for all programs."""
    each = max(1, PROGRAMS_EACH * _multiprocessors(device) // bags)
    return min(views, max(least, -(-views // each)))


def forward(z: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The loss. `kept`, [B, 2, d] or [0, 2, d], is filled for the gradient."""
    views, bags, d = z.shape
    wide, rows, num_warps = blocks(views, d)
    losses = torch.empty(bags, dtype=torch.float32, device=z.device)
    scale, keep = -1 / (views * bags), len(kept) > 0
    shape = {"D": d, "WIDE": wide, "num_warps": num_warps, **COMPILER}
    span = span_of(views, bags, LEAST_SPAN, z.device)
    splits = -(-views // span)
    with _on(z):
        if splits == 1:
            kernels.whole[(bags,)](
                z, kept, losses, *z.stride()[:2], views, scale, ROWS=rows, KEEP=keep, **shape
            )
        else:
            parts = torch.empty(splits, bags, 2, d, dtype=torch.float32, device=z.device)
            kernels.gather[(bags, splits)](
                z, parts, *z.stride()[:2], views, span, ROWS=rows, **shape
            )
            kernels.settle[(bags,)](parts, kept, losses, views, splits, scale, KEEP=keep, **shape)
        return losses.sum()


def backward(gradient: torch.Tensor, z: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The gradient by z, in its type; where no bags were kept, they are made anew."""
    views, bags, d = z.shape
    wide, rows, num_warps = blocks(views, d)
    out, keep = torch.empty_like(z), len(kept) > 0
    span = span_of(views, bags, rows, z.device) if keep else views
    steps = (*z.stride()[:2], *out.stride()[:2])
    with _on(z):
        kernels.spread[(bags, -(-views // span))](
            z, kept, gradient, out, *steps, views, span, -1 / (views * bags),
            D=d, WIDE=wide, ROWS=rows, KEPT=keep, num_warps=num_warps, **COMPILER,
        )  # fmt: skip
    return out


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return INTERPRETED_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def _on(tensor: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
