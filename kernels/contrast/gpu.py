"""On the GPU: a softmax over spans of the keys at once, put together in a fixed order.

Spans (split keys) keep all multiprocessors busy where the queries are few. Up to WIDEST numbers a
row, one pass over the keys makes the loss and its gradient by the queries; beyond that the gradient
takes a second one. Two runs on one kind of GPU are equal to the bit.

Memory beside the results: 4 bytes for each number of the queries and of those keys that want a
gradient, times the spans; there are spans only as long as all of them are no more than BLOCKS_EACH
blocks a multiprocessor, which are 17 MB on an H100 with 128 numbers a row.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import triton

from patchmill.kernels.contrast import gpu_kernels as kernels
from patchmill.kernels.contrast.pairing import QUEUE, Pairing

LOG2_E = 1.4426950408889634
BLOCKS_EACH = 2  # a multiprocessor's, at the most: what fits beside one another
INTERPRETED_MULTIPROCESSORS = 4
WIDEST = 256  # numbers of a row whose sums registers hold
PRECISION = "tf32x3"  # three products of TF32 for one of float32: nearly all of its digits
COMPILER = {"enable_fp_fusion": True}

Sets = list[tuple[torch.Tensor, bool]]  # keys, and whether a query leaves itself out of them
Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # peaks, sums [splits, N], means or any


class Blocks(NamedTuple):
    rows: int
    columns: int
    deep: int  # numbers of a row that are multiplied at a time
    wide: int  # that are summed up at a time
    num_warps: int
    num_stages: int


def blocks(d: int, rows: int, dtype: torch.dtype) -> Blocks:
    """What fits in registers, for rows of d numbers; `wide` is d or more up to WIDEST."""
    width = min(max(16, triton.next_power_of_2(d)), WIDEST)
    if dtype == torch.float32:  # `PRECISION` splits each operand in two: larger blocks would spill
        columns, num_warps = (16, 8) if width > 128 else (32, 4)
        return Blocks(64, columns, min(width, columns), width, num_warps, 3)
    if d <= WIDEST and width == WIDEST:
        return Blocks(64, 64, width, width, 4, 2)
    rows, num_warps = (64, 4) if rows <= 64 and d <= WIDEST else (128, 8)
    return Blocks(rows, 64, width if d <= WIDEST else 64, width, num_warps, 3)


def forward(
    queries: torch.Tensor,
    companions: torch.Tensor,
    queue: torch.Tensor | None,
    temperature: float,
    pairing: Pairing,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `cpu.forward`."""
    sets = [] if pairing.kind == QUEUE else [(companions, pairing.alone)]
    if queue is not None and len(queue):
        sets.append((queue, False))
    sizes = blocks(queries.shape[1], len(queries), queries.dtype)
    with _on(queries):
        in_one = gradient and sizes.wide >= queries.shape[1]
        parts = _gather(queries, sets, temperature, pairing, sizes, in_one)
        loss, lse, slope = _settle(parts, queries, companions, temperature, pairing, in_one)
        if gradient and not in_one:
            summed = [
                _pull(queries, keys, lse, None, temperature, pairing, alone, sizes)
                for keys, alone in sets
            ]
            every = summed[0] if len(summed) == 1 else torch.cat(summed)
            slope = _finish_queries(every, queries, companions, lse, temperature, pairing)
    return loss, lse, slope


def pulled(
    gradient: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor | None,
    lse: torch.Tensor,
    temperature: float,
    pairing: Pairing,
    companions: bool,
) -> torch.Tensor:
    """As `cpu.pulled`."""
    near = queries if keys is None else keys
    if not len(near):
        return torch.empty_like(near)
    sizes = blocks(queries.shape[1], len(near), queries.dtype)
    row_lse = lse if keys is None else None
    alone = companions and pairing.alone
    with _on(queries):
        summed = _pull(near, queries, row_lse, lse, temperature, pairing, alone, sizes)
        return _finish_keys(
            summed, near, queries, gradient, temperature, pairing, companions, keys is None
        )


def _gather(
    queries: torch.Tensor, sets: Sets, temperature: float, pairing: Pairing, sizes: Blocks,
    means: bool,
) -> Parts:  # fmt: skip
    n, d = queries.shape
    spread = [spans(len(keys), n, sizes, queries.device) for keys, _ in sets]
    splits = sum(count for _, count in spread)
    peaks = queries.new_empty(splits, n, dtype=torch.float32)
    sums = torch.empty_like(peaks)
    parts = queries.new_empty(splits, n, d, dtype=torch.float32) if means else peaks
    first = 0
    for (keys, alone), (span, count) in zip(sets, spread, strict=True):
        kernels.gather[(triton.cdiv(n, sizes.rows), count)](
            queries, keys, peaks, sums, parts, n, len(keys), span, first, LOG2_E / temperature,
            pairing.local, pairing.total, pairing.offset,
            D=d, DEEP=sizes.deep, WIDE=sizes.wide, ROWS=sizes.rows, COLUMNS=sizes.columns,
            ALONE=alone, MEAN=means, PRECISION=PRECISION, num_warps=sizes.num_warps,
            num_stages=sizes.num_stages, **COMPILER,
        )  # fmt: skip
        first += count
    return peaks, sums, parts


def _settle(
    parts: Parts, queries: torch.Tensor, companions: torch.Tensor, temperature: float,
    pairing: Pairing, means: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    (n, d), splits = queries.shape, len(parts[0])
    losses = queries.new_empty(n, dtype=torch.float32)
    lse = torch.empty_like(losses)
    slope = queries.new_empty(n if means else 0, d, dtype=torch.float32)
    block = row_block(d, splits)
    kernels.settle[(n,)](
        *parts, queries, companions, losses, lse, slope, n, splits, LOG2_E / temperature,
        1 / (n * temperature), pairing.local, pairing.total, pairing.offset,
        VIEWS=pairing.views, D=d, WIDE=block.wide, SPLITS=triton.next_power_of_2(splits),
        BUNCH=block.bunch, ALONE=pairing.alone, OWN=pairing.kind == QUEUE, MEAN=means,
        num_warps=block.num_warps, **COMPILER,
    )  # fmt: skip
    return losses.mean(), lse, slope


def _pull(
    rows: torch.Tensor, columns: torch.Tensor,
    row_lse: torch.Tensor | None, column_lse: torch.Tensor | None,
    temperature: float, pairing: Pairing, alone: bool, sizes: Blocks,
) -> torch.Tensor:  # fmt: skip
    """[splits, rows, d]; log-denominators belong to whichever of the two are queries."""
    n, d = rows.shape
    span, splits = spans(len(columns), n, sizes, rows.device)
    out = rows.new_empty(splits, n, d, dtype=torch.float32)
    kernels.pull[(triton.cdiv(n, sizes.rows), splits, triton.cdiv(d, sizes.wide))](
        rows, columns, row_lse, column_lse, out, n, len(columns), span, LOG2_E / temperature,
        pairing.local, pairing.total, pairing.offset,
        D=d, DEEP=sizes.deep, WIDE=sizes.wide, ROWS=sizes.rows, COLUMNS=sizes.columns,
        BY_ROW=row_lse is not None, BY_COLUMN=column_lse is not None, ALONE=alone,
        PRECISION=PRECISION, num_warps=sizes.num_warps, num_stages=sizes.num_stages, **COMPILER,
    )  # fmt: skip
    return out


def _finish_queries(
    summed: torch.Tensor, queries: torch.Tensor, companions: torch.Tensor, lse: torch.Tensor,
    temperature: float, pairing: Pairing,
) -> torch.Tensor:  # fmt: skip
    out = torch.empty(queries.shape, dtype=torch.float32, device=queries.device)
    n, d = queries.shape
    block = row_block(d, len(summed))
    kernels.finish[(n,)](
        summed, queries, companions, lse, None, out, n, len(summed), LOG2_E / temperature,
        1 / (n * temperature), 1 / pairing.positives, pairing.local, pairing.total, pairing.offset,
        VIEWS=pairing.views, D=d, WIDE=block.wide, BUNCH=block.bunch, ALONE=pairing.alone,
        PEERS=True, OWN=pairing.kind == QUEUE, num_warps=block.num_warps, **COMPILER,
    )  # fmt: skip
    return out


def _finish_keys(
    summed: torch.Tensor, keys: torch.Tensor, queries: torch.Tensor, gradient: torch.Tensor,
    temperature: float, pairing: Pairing, companions: bool, both: bool,
) -> torch.Tensor:  # fmt: skip
    """Of keys that are queries too (`both`), positives pay once for each of the two."""
    out, (n, d) = torch.empty_like(keys), keys.shape
    block, pay = row_block(d, len(summed)), (2 if both else 1) / pairing.positives
    kernels.finish[(n,)](
        summed, keys, queries, summed, gradient, out, n, len(summed), 0.0,
        1 / (len(queries) * temperature), pay, pairing.total, pairing.local, -pairing.offset,
        VIEWS=pairing.views, D=d, WIDE=block.wide, BUNCH=block.bunch, ALONE=pairing.alone,
        PEERS=companions, OWN=False, num_warps=block.num_warps, **COMPILER,
    )  # fmt: skip
    return out


def spans(count: int, rows: int, sizes: Blocks, device: torch.device) -> tuple[int, int]:
    """How long spans of `count` columns are, in whole blocks, and how many: one wave of blocks."""
    beside = BLOCKS_EACH * multiprocessors(device) // triton.cdiv(rows, sizes.rows)
    span = triton.cdiv(triton.cdiv(count, max(beside, 1)), sizes.columns) * sizes.columns
    return span, triton.cdiv(count, span)


def multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return INTERPRETED_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


class RowBlock(NamedTuple):
    """For kernels that put one row together out of its splits."""

    wide: int
    bunch: int
    num_warps: int


def row_block(d: int, splits: int) -> RowBlock:
    wide = triton.next_power_of_2(d)
    bunch = min(triton.next_power_of_2(splits), max(4096 // wide, 1), 16)
    return RowBlock(wide, bunch, min(max(wide * bunch // 512, 1), 8))


def _on(tensor: torch.Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
