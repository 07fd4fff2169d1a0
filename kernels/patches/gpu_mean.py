"""Means of rows on the GPU: programs share out each group's rows, in equal parts.

As many parts as keep the GPU busy; they are put together in their order, so that two runs on one
kind of GPU are equal to the bit. Memory beside the results: 4 d bytes for each part, of which there
are about PARTS_EACH for each multiprocessor, or none where the groups alone are enough.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import triton

from patchmill.kernels.patches import gpu_kernels as kernels

PARTS_EACH = 8  # that fit on a multiprocessor beside one another
LEAST = 4  # tiles of rows that are worth a part
WIDEST = 32768  # numbers of a row: 32 for each of 1024 threads
INTERPRETED_MULTIPROCESSORS = 1


class Tile(NamedTuple):
    wide: int  # numbers, one whole row
    tall: int  # rows
    num_warps: int


def tile(d: int) -> Tile:
    """32 numbers a thread, or fewer where rows are short."""
    wide = triton.next_power_of_2(d)
    if wide > WIDEST:
        raise ValueError(
            f"aggregate on a GPU takes embeddings of at most {WIDEST} numbers, not {d}: split them "
            "by columns, or do it on the CPU"
        )
    if wide > 4096:
        return Tile(wide, 1, wide // 1024)
    return Tile(wide, min(4096 // wide, 64), 4)


def forward(
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    each: bool,
    unit: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `cpu_mean.forward`."""
    groups, (count, d) = len(offsets) - 1, embeddings.shape
    sizes, splits = tile(d), parts(groups, count, d, embeddings.device)
    means = torch.empty((groups, d), device=embeddings.device)
    totals, lengths = means.new_empty(groups), means.new_empty(groups)
    if not groups:
        return means, totals, lengths
    sums, shares = means, totals
    if splits > 1:
        sums, shares = means.new_empty((splits, groups, d)), means.new_empty((splits, groups))
    with _on(embeddings):
        kernels.average[(groups * splits,)](
            embeddings, weights, offsets, order, sums, shares, lengths, groups, splits,
            D=d, WIDE=sizes.wide, TALL=sizes.tall, STAGES=stages(d), EACH=each, UNIT=unit,
            WHOLE=splits == 1, num_warps=sizes.num_warps,
        )  # fmt: skip
        if splits > 1:
            kernels.settle[(groups,)](
                sums, shares, means, totals, lengths, groups, splits,
                D=d, WIDE=sizes.wide, UNIT=unit, num_warps=sizes.num_warps,
            )  # fmt: skip
    return means, totals, lengths


def pulled(
    slope: torch.Tensor,
    rest: torch.Tensor,
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    rows: int,
    each: bool,
    by_rows: bool,
    by_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `cpu_mean.pulled`."""
    groups, d = slope.shape
    out = embeddings.new_empty((rows if by_rows else 0, d))
    gains = slope.new_empty(rows if by_weights else 0)
    sizes, splits = tile(d), parts(groups, rows, d, slope.device)
    if groups and (by_rows or by_weights):
        with _on(slope):
            kernels.pull[(groups * splits,)](
                slope, rest, embeddings, weights, offsets, order,
                out if by_rows else None, gains if by_weights else None, splits,
                D=d, WIDE=sizes.wide, TALL=sizes.tall, STAGES=stages(d), EACH=each,
                num_warps=sizes.num_warps,
            )  # fmt: skip
    return out, gains


def stages(d: int) -> int:
    """Tiles that are on their way at once: rows too long leave room for fewer in shared memory."""
    return 3 if d <= 8192 else 1


def parts(groups: int, rows: int, d: int, device: torch.device) -> int:
    """Of each group, for groups that are about alike."""
    processors = INTERPRETED_MULTIPROCESSORS
    if device.type == "cuda":
        processors = torch.cuda.get_device_properties(device).multi_processor_count
    wanted = triton.cdiv(PARTS_EACH * processors, max(groups, 1))
    most = rows // max(groups, 1) // (LEAST * tile(d).tall)
    return max(1, min(wanted, most))


def _on(tensor: torch.Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
