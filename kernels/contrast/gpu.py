"""GPU backend: the keys are split over programs (split-K), and splits are reduced in a fixed order.

Splits keep all multiprocessors busy if the queries are few. Up to MAX_FUSED elements per row,
one pass over the keys computes the loss and its gradient w.r.t. the queries; beyond that the
gradient takes a second pass. Two runs on the same GPU model are bit-identical.

Extra memory: per split, 4 bytes for each element of the queries and of those keys that require a
gradient; keys are split only until there are BLOCKS_PER_SM blocks per multiprocessor, which is
17 MB on an H100 with 128 elements per row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from patchmill.kernels.common.dispatch import device_guard, multiprocessors
from patchmill.kernels.contrast import gpu_kernels as kernels
from patchmill.kernels.contrast.pairing import QUEUE, Pairing

LOG2_E = 1.4426950408889634
BLOCKS_PER_SM = 2  # per multiprocessor, at most: as many as are resident together
INTERPRETED_MULTIPROCESSORS = 4
MAX_FUSED = 256  # elements of a row whose gradient is accumulated in registers
PRECISION = "tf32x3"  # three TF32 products for one in float32: nearly all of its digits
COMPILER = {"enable_fp_fusion": True}

KeySets = list[tuple[torch.Tensor, bool]]  # keys, and whether a query's softmax excludes itself
Partial = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # row maxima, row sums, weighted keys


class Blocks(NamedTuple):
    m: int  # rows of a block of logits
    n: int  # its columns
    k: int  # elements of a row multiplied at a time
    d: int  # elements of a row accumulated at a time
    num_warps: int
    num_stages: int


def blocks(d: int, rows: int, dtype: torch.dtype) -> Blocks:
    """Block sizes that fit in registers, for rows of d; `Blocks.d` >= d up to MAX_FUSED."""
    width = min(max(16, triton.next_power_of_2(d)), MAX_FUSED)
    if dtype == torch.float32:  # `PRECISION` splits each operand in two: larger blocks would spill
        rows, num_warps = (32, 8) if width > 128 else (64, 4)
        return Blocks(rows, 32, min(width, 32), width, num_warps, 3)
    if d <= MAX_FUSED and width == MAX_FUSED:
        return Blocks(64, 64, width, width, 8, 2)
    rows, num_warps = (64, 4) if rows <= 64 and d <= MAX_FUSED else (128, 8)
    return Blocks(rows, 64, width if d <= MAX_FUSED else 64, width, num_warps, 3)


def forward(
    queries: torch.Tensor,
    batch_keys: torch.Tensor,
    queue: torch.Tensor | None,
    temperature: float,
    pairing: Pairing,
    with_grad: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, log-sum-exp and gradient w.r.t. the queries; same contract as `cpu.forward`."""
    sets = [] if pairing.kind == QUEUE else [(batch_keys, pairing.excludes_self)]
    if queue is not None and len(queue):
        sets.append((queue, False))
    sizes = blocks(queries.shape[1], len(queries), queries.dtype)
    with device_guard(queries):
        fused = with_grad and sizes.d >= queries.shape[1]
        partial = _forward_splits(queries, sets, temperature, pairing, sizes, fused)
        loss, lse, grad = _reduce_splits(partial, queries, batch_keys, temperature, pairing, fused)
        if with_grad and not fused:
            sums = [
                _backward_splits(
                    queries, keys, lse, None, temperature, pairing, excludes_self, sizes
                )
                for keys, excludes_self in sets
            ]
            every = sums[0] if len(sums) == 1 else torch.cat(sums)
            grad = _reduce_grad_queries(every, queries, batch_keys, lse, temperature, pairing)
    return loss, lse, grad


def backward_keys(
    grad_loss: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor | None,
    lse: torch.Tensor,
    temperature: float,
    pairing: Pairing,
    are_batch_keys: bool,
) -> torch.Tensor:
    """Gradient w.r.t. the keys; same contract as `cpu.backward_keys`."""
    both_roles = keys is None
    keys = queries if keys is None else keys
    if not len(keys):
        return torch.empty_like(keys)
    sizes = blocks(queries.shape[1], len(keys), queries.dtype)
    row_lse = lse if both_roles else None
    excludes_self = are_batch_keys and pairing.excludes_self
    with device_guard(queries):
        sums = _backward_splits(
            keys, queries, row_lse, lse, temperature, pairing, excludes_self, sizes
        )
        return _reduce_grad_keys(
            sums, keys, queries, grad_loss, temperature, pairing, are_batch_keys, both_roles
        )


def _forward_splits(
    queries: torch.Tensor,
    sets: KeySets,
    temperature: float,
    pairing: Pairing,
    sizes: Blocks,
    fused: bool,
) -> Partial:
    n, d = queries.shape
    layout = [split_layout(len(keys), n, sizes, queries.device) for keys, _ in sets]
    splits = sum(count for _, count in layout)
    row_maxima = queries.new_empty(splits, n, dtype=torch.float32)
    row_sums = torch.empty_like(row_maxima)
    weighted = row_maxima  # not written
    if fused:
        weighted = queries.new_empty(splits, n, d, dtype=torch.float32)
    first = 0
    for (keys, excludes_self), (split_size, count) in zip(sets, layout, strict=True):
        kernels.forward_split[(triton.cdiv(n, sizes.m), count)](
            queries, keys, row_maxima, row_sums, weighted,
            n, len(keys), split_size, first, LOG2_E / temperature,
            pairing.local, pairing.total, pairing.offset,
            D=d, BLOCK_K=sizes.k, BLOCK_D=sizes.d, BLOCK_M=sizes.m, BLOCK_N=sizes.n,
            EXCLUDE_SELF=excludes_self, WITH_GRAD=fused, PRECISION=PRECISION,
            num_warps=sizes.num_warps, num_stages=sizes.num_stages, **COMPILER,
        )  # fmt: skip
        first += count
    return row_maxima, row_sums, weighted


def _reduce_splits(
    partial: Partial,
    queries: torch.Tensor,
    batch_keys: torch.Tensor,
    temperature: float,
    pairing: Pairing,
    fused: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    (n, d), splits = queries.shape, len(partial[0])
    losses = queries.new_empty(n, dtype=torch.float32)
    lse = torch.empty_like(losses)
    grad = queries.new_empty(n if fused else 0, d, dtype=torch.float32)
    block = row_block(d, splits)
    kernels.reduce_splits[(n,)](
        *partial, queries, batch_keys, losses, lse, grad,
        n, splits, LOG2_E / temperature, 1 / (n * temperature),
        pairing.local, pairing.total, pairing.offset,
        VIEWS=pairing.views, D=d, BLOCK_D=block.d, BLOCK_SPLITS=triton.next_power_of_2(splits),
        UNROLL=block.unroll, EXCLUDE_SELF=pairing.excludes_self,
        ADD_POSITIVE=pairing.kind == QUEUE, WITH_GRAD=fused,
        num_warps=block.num_warps, **COMPILER,
    )  # fmt: skip
    return losses.mean(), lse, grad


def _backward_splits(
    rows: torch.Tensor,
    columns: torch.Tensor,
    row_lse: torch.Tensor | None,
    column_lse: torch.Tensor | None,
    temperature: float,
    pairing: Pairing,
    excludes_self: bool,
    sizes: Blocks,
) -> torch.Tensor:
    """[splits, rows, d] float32; each of the two that are queries has a log-sum-exp."""
    n, d = rows.shape
    split_size, splits = split_layout(len(columns), n, sizes, rows.device)
    out = rows.new_empty(splits, n, d, dtype=torch.float32)
    kernels.backward_split[(triton.cdiv(n, sizes.m), splits, triton.cdiv(d, sizes.d))](
        rows, columns, row_lse, column_lse, out,
        n, len(columns), split_size, LOG2_E / temperature,
        pairing.local, pairing.total, pairing.offset,
        D=d, BLOCK_K=sizes.k, BLOCK_D=sizes.d, BLOCK_M=sizes.m, BLOCK_N=sizes.n,
        ROW_QUERIES=row_lse is not None, COLUMN_QUERIES=column_lse is not None,
        EXCLUDE_SELF=excludes_self, PRECISION=PRECISION,
        num_warps=sizes.num_warps, num_stages=sizes.num_stages, **COMPILER,
    )  # fmt: skip
    return out


def _reduce_grad_queries(
    sums: torch.Tensor,
    queries: torch.Tensor,
    batch_keys: torch.Tensor,
    lse: torch.Tensor,
    temperature: float,
    pairing: Pairing,
) -> torch.Tensor:
    out = torch.empty(queries.shape, dtype=torch.float32, device=queries.device)
    n, d = queries.shape
    block = row_block(d, len(sums))
    kernels.reduce_gradient[(n,)](
        sums, queries, batch_keys, lse, None, out,
        n, len(sums), LOG2_E / temperature, 1 / (n * temperature), 1 / pairing.n_positives,
        pairing.local, pairing.total, pairing.offset,
        VIEWS=pairing.views, D=d, BLOCK_D=block.d, UNROLL=block.unroll,
        EXCLUDE_SELF=pairing.excludes_self, SUBTRACT_POSITIVES=True,
        ADD_POSITIVE=pairing.kind == QUEUE, num_warps=block.num_warps, **COMPILER,
    )  # fmt: skip
    return out


def _reduce_grad_keys(
    sums: torch.Tensor,
    keys: torch.Tensor,
    queries: torch.Tensor,
    grad_loss: torch.Tensor,
    temperature: float,
    pairing: Pairing,
    are_batch_keys: bool,
    both_roles: bool,
) -> torch.Tensor:
    """[keys, d]; positives are subtracted twice for keys that are queries too (`both_roles`)."""
    out, (n, d) = torch.empty_like(keys), keys.shape
    block = row_block(d, len(sums))
    positive_weight = (2 if both_roles else 1) / pairing.n_positives
    kernels.reduce_gradient[(n,)](
        sums, keys, queries, sums, grad_loss, out,
        n, len(sums), 0.0, 1 / (len(queries) * temperature), positive_weight,
        pairing.total, pairing.local, -pairing.offset,
        VIEWS=pairing.views, D=d, BLOCK_D=block.d, UNROLL=block.unroll,
        EXCLUDE_SELF=pairing.excludes_self, SUBTRACT_POSITIVES=are_batch_keys,
        ADD_POSITIVE=False, num_warps=block.num_warps, **COMPILER,
    )  # fmt: skip
    return out


def split_layout(count: int, rows: int, sizes: Blocks, device: torch.device) -> tuple[int, int]:
    """Columns per split, in whole blocks, and number of splits: one wave of blocks."""
    processors = multiprocessors(device, INTERPRETED_MULTIPROCESSORS)
    wanted = BLOCKS_PER_SM * processors // triton.cdiv(rows, sizes.m)
    split_size = triton.cdiv(triton.cdiv(count, max(wanted, 1)), sizes.n) * sizes.n
    return split_size, triton.cdiv(count, split_size)


class RowBlock(NamedTuple):
    """Sizes for the kernels that reduce one row over its splits."""

    d: int
    unroll: int  # splits read at a time
    num_warps: int


def row_block(d: int, splits: int) -> RowBlock:
    width = triton.next_power_of_2(d)
    unroll = min(triton.next_power_of_2(splits), max(4096 // width, 1), 16)
    return RowBlock(width, unroll, min(max(width * unroll // 512, 1), 8))
