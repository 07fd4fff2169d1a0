"""GPU backend of aggregation: each segment's rows are split evenly over programs (split-K).

There are enough splits to keep the GPU busy; they are reduced in order, so two runs on the same GPU
model are bit-identical. Extra memory: 4 d bytes per split, with about SPLITS_PER_SM splits per
multiprocessor, or none if the segments alone are enough.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from patchmill.kernels.aggregate import gpu_kernels as kernels
from patchmill.kernels.common.dispatch import device_guard, multiprocessors

SPLITS_PER_SM = 8  # splits resident on a multiprocessor
MIN_TILES_PER_SPLIT = 4  # tiles of rows that justify a split
MAX_D = 32768  # elements of a row: 32 for each of 1024 threads
INTERPRETED_MULTIPROCESSORS = 1


class Tile(NamedTuple):
    d: int  # elements, one whole row
    rows: int
    num_warps: int


def tile(d: int) -> Tile:
    """32 elements per thread, or fewer if rows are short: more than 32 rows would spill."""
    width = triton.next_power_of_2(d)
    if width > MAX_D:
        raise ValueError(
            f"aggregate on a GPU takes embeddings of at most {MAX_D} numbers, not {d}: split them "
            "by columns, or run it on the CPU"
        )
    if width > 4096:
        return Tile(width, 1, width // 1024)
    return Tile(width, min(4096 // width, 32), 4)


def stages(d: int) -> int:
    """Software pipelining stages: long rows leave shared memory for fewer tiles."""
    return 3 if d <= 8192 else 1


def split_count(segments: int, rows: int, d: int, device: torch.device) -> int:
    """Number of splits per segment, for segments of about equal size."""
    processors = multiprocessors(device, INTERPRETED_MULTIPROCESSORS)
    wanted = triton.cdiv(SPLITS_PER_SM * processors, max(segments, 1))
    most = rows // max(segments, 1) // (MIN_TILES_PER_SPLIT * tile(d).rows)
    return max(1, min(wanted, most))


def mean(
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    unit_rows: bool,
    unit_mean: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means, sums of weights and lengths; same contract as `cpu.mean`."""
    segments, (count, d) = len(offsets) - 1, embeddings.shape
    block, splits = tile(d), split_count(segments, count, d, embeddings.device)
    means = torch.empty((segments, d), device=embeddings.device)
    totals, lengths = means.new_empty(segments), means.new_empty(segments)
    if not segments:
        return means, totals, lengths
    split_sums, split_totals = means, totals
    if splits > 1:
        split_sums = means.new_empty((splits, segments, d))
        split_totals = means.new_empty((splits, segments))
    with device_guard(embeddings):
        kernels.forward_split[(segments * splits,)](
            embeddings, weights, offsets, order, split_sums, split_totals, lengths,
            segments, splits,
            D=d, BLOCK_D=block.d, BLOCK_ROWS=block.rows, STAGES=stages(d), UNIT_ROWS=unit_rows,
            UNIT_MEAN=unit_mean, ONE_SPLIT=splits == 1, num_warps=block.num_warps,
        )  # fmt: skip
        if splits > 1:
            kernels.reduce_splits[(segments,)](
                split_sums, split_totals, means, totals, lengths, segments, splits,
                D=d, BLOCK_D=block.d, UNIT_MEAN=unit_mean, num_warps=block.num_warps,
            )  # fmt: skip
    return means, totals, lengths


def mean_backward(
    grad_sums: torch.Tensor,
    grad_dot_mean: torch.Tensor,
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    rows: int,
    unit_rows: bool,
    need_rows: bool,
    need_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients w.r.t. rows and weights; same contract as `cpu.mean_backward`."""
    segments, d = grad_sums.shape
    grad_rows = embeddings.new_empty((rows if need_rows else 0, d))
    grad_weights = grad_sums.new_empty(rows if need_weights else 0)
    block, splits = tile(d), split_count(segments, rows, d, grad_sums.device)
    if segments and (need_rows or need_weights):
        with device_guard(grad_sums):
            kernels.backward_split[(segments * splits,)](
                grad_sums, grad_dot_mean, embeddings, weights, offsets, order,
                grad_rows if need_rows else None, grad_weights if need_weights else None, splits,
                D=d, BLOCK_D=block.d, BLOCK_ROWS=block.rows, STAGES=stages(d), UNIT_ROWS=unit_rows,
                num_warps=block.num_warps,
            )  # fmt: skip
    return grad_rows, grad_weights
