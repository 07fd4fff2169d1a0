"""CPU backend: block products by the BLAS and an online softmax over blocks of logits.

A block of logits is computed, used and overwritten in one core's cache. The gradient of a
log-sum-exp w.r.t. its query is the softmax-weighted mean of the keys, as in attention with the keys
as values: so one pass computes the loss and its gradient w.r.t. the queries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from patchmill.kernels.common.compiling import announce_compilation
from patchmill.kernels.common.parallel import parallel_for
from patchmill.kernels.contrast.cpu_loops import exp_rows, softmax_weights
from patchmill.kernels.contrast.pairing import QUEUE, Pairing

ROWS, COLUMNS = 128, 1024  # of a block of logits, at most: half a MiB
# Up to this many rows, and elements per row, all logits are in memory together: torch's sums of
# that length are the same for any number of threads.
DENSE_ROWS = 192
TASKS = 16  # at least, if there are as many blocks: keys are split in groups if queries are few
LOWEST = -1e38  # below every logit, yet finite: LOWEST - LOWEST is 0

Block = tuple[torch.Tensor, slice, bool]  # a set of keys, the rows of it, whether batch keys


def forward(
    queries: torch.Tensor,
    batch_keys: torch.Tensor,
    queue: torch.Tensor | None,
    temperature: float,
    pairing: Pairing,
    with_grad: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, log-sum-exp [N] and, if `with_grad`, the gradient w.r.t. the queries [N, d] float32.

    If the queries are their own batch keys, the gradient is that of both roles.
    """
    if with_grad and pairing.excludes_self and batch_keys is queries:
        if max(queries.shape) <= DENSE_ROWS:
            return forward_dense(queries.float(), temperature, pairing)
        loss, lse, _ = forward(queries, batch_keys, None, temperature, pairing, False)
        return loss, lse, grad_keys(queries.float(), queries, lse, temperature, pairing, True)
    blocks: list[Block] = []
    if pairing.kind != QUEUE:
        blocks += [(batch_keys, rows, True) for rows in even_slices(len(batch_keys), COLUMNS)]
    if queue is not None:
        blocks += [(queue, rows, False) for rows in even_slices(len(queue), COLUMNS)]
    parts = list(even_slices(len(queries), ROWS))
    groups = list(even_slices(len(blocks), -(-len(blocks) * len(parts) // TASKS)))
    maxima, sums = torch.empty(2, len(groups), len(queries))
    weighted = torch.empty(len(groups), *queries.shape) if with_grad else None

    def work(task: int) -> None:
        part, group = parts[task // len(groups)], task % len(groups)
        out = None if weighted is None else weighted[group, part].zero_()
        maxima[group, part], sums[group, part] = online_softmax(
            queries, part, blocks[groups[group]], 1 / temperature, pairing, out
        )

    with announce_compilation():
        parallel_for(work, len(parts) * len(groups))
    positives = pairing.mean_positives(batch_keys)
    return reduce_groups(queries, positives, temperature, pairing, maxima, sums, weighted)


def reduce_groups(
    queries: torch.Tensor,
    positives: torch.Tensor,
    temperature: float,
    pairing: Pairing,
    maxima: torch.Tensor,
    sums: torch.Tensor,
    weighted: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`forward`'s results from those of `online_softmax` for each group of keys.

    maxima and sums are [groups, N], weighted [groups, N, d]; positives [N, d] are each query's mean
    positive.
    """
    positive_logits = torch.linalg.vecdot(queries.float(), positives).div_(temperature)
    row_max = maxima.amax(0)
    if pairing.kind == QUEUE:  # the positive is in the softmax of its query, but not in any block
        row_max = torch.maximum(row_max, positive_logits)
    rescale = maxima.sub_(row_max).exp_()
    positive_exp = (positive_logits - row_max).exp_()
    total = sums.mul_(rescale).sum(0)
    if pairing.kind == QUEUE:
        total += positive_exp
    log_total = total.log()
    loss, lse = (log_total + (row_max - positive_logits)).mean(), log_total + row_max
    if weighted is None:
        return loss, lse, positives.new_empty(0, positives.shape[1])
    grad = weighted.mul_(rescale[:, :, None]).sum(0)
    if pairing.kind == QUEUE:
        grad.addcmul_(positive_exp[:, None], positives)
    grad.div_(total[:, None]).sub_(positives)
    return loss, lse, grad.div_(len(queries) * temperature)


def forward_dense(
    queries: torch.Tensor, temperature: float, pairing: Pairing
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`forward` for few queries that are their own batch keys, with all logits in memory."""
    positives = pairing.mean_positives(queries)
    logits = torch.mm(queries, queries.T).div_(temperature).fill_diagonal_(-torch.inf)
    lse = logits.logsumexp(1)
    loss = (lse - torch.linalg.vecdot(queries, positives).div_(temperature)).mean()
    weights = logits.sub_(lse[:, None]).exp_()
    grad = torch.addmm(positives, weights + weights.T, queries, beta=-2)
    return loss, lse, grad.div_(len(queries) * temperature)


def online_softmax(
    queries: torch.Tensor,
    part: slice,
    blocks: Sequence[Block],
    scale: float,
    pairing: Pairing,
    weighted: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row maximum and sum of exp(logit - maximum) of some queries, over all blocks of keys.

    Adds exp(logit - maximum) * key to `weighted`, [rows, d], if given.
    """
    rows = queries[part].float()
    row_max = rows.new_full((len(rows),), LOWEST)
    total, block_sum = torch.zeros_like(row_max), torch.empty_like(row_max)
    memory = rows.new_empty(len(rows) * COLUMNS)
    for keys, block, are_batch_keys in blocks:
        columns = keys[block].float()
        products = product(rows, columns, memory)
        if are_batch_keys:
            mask_self(products, pairing, part, block)
        new_max = torch.maximum(row_max, products.amax(1).mul_(scale))
        rescale = row_max.sub_(new_max).exp_()
        exp_rows(products.numpy(), np.float32(scale), new_max.numpy(), block_sum.numpy())
        total.mul_(rescale).add_(block_sum)
        if weighted is not None:
            weighted.mul_(rescale[:, None]).addmm_(products, columns)
        row_max = new_max
    return row_max, total


def backward_keys(
    grad_loss: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor | None,
    lse: torch.Tensor,
    temperature: float,
    pairing: Pairing,
    are_batch_keys: bool,
) -> torch.Tensor:
    """Gradient w.r.t. `keys`, in their dtype: the batch keys (`are_batch_keys`) or the queue.

    Without `keys` the queries are their own batch keys: the gradient w.r.t. them, in both roles.
    """
    both_roles = keys is None
    keys = queries if keys is None else keys
    key_pairing = pairing if are_batch_keys else None
    out = grad_keys(queries.float(), keys, lse, temperature, key_pairing, both_roles)
    return out.mul_(grad_loss).to(keys.dtype)


def grad_keys(
    queries: torch.Tensor,
    keys: torch.Tensor,
    lse: torch.Tensor,
    temperature: float,
    pairing: Pairing | None,
    both_roles: bool,
) -> torch.Tensor:
    """The loss's gradient w.r.t. the keys, float32; `both_roles`: keys are the queries too.

    `pairing` is that of batch keys, None for a queue.
    """
    out = torch.zeros(keys.shape, dtype=torch.float32)
    blocks, scale = list(even_slices(len(keys), ROWS)), np.float32(1 / temperature)

    def work(task: int) -> None:
        block = blocks[task]
        rows = keys[block].float()
        memory = rows.new_empty(len(rows) * COLUMNS)
        row_lse = lse[block if both_roles else slice(0)].numpy()
        for part in even_slices(len(queries), COLUMNS):
            columns = queries[part]
            products = product(rows, columns, memory)
            if pairing is not None:
                mask_self(products.T, pairing, part, block)
            softmax_weights(products.numpy(), scale, lse[part].numpy(), row_lse)
            out[block].addmm_(products, columns)

    with announce_compilation():
        parallel_for(work, len(blocks))
    if pairing is not None:
        pairing.subtract_positives(out, queries, 2 if both_roles else 1)
    return out.div_(len(queries) * temperature)


def product(left: torch.Tensor, right: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """left @ right.T, written to the given memory."""
    out = memory[: len(left) * len(right)].view(len(left), len(right))
    return torch.mm(left, right.T, out=out)


def mask_self(logits: torch.Tensor, pairing: Pairing, queries: slice, batch_keys: slice) -> None:
    """Set the logits of queries with themselves among the batch keys to -inf."""
    for square in pairing.self_blocks(queries, batch_keys) if pairing.excludes_self else ():
        logits[square].diagonal().fill_(-torch.inf)


def even_slices(count: int, most: int) -> Iterator[slice]:
    """Split [0, count) into slices of at most `most`, whose lengths differ by at most one."""
    pieces = -(-count // most)
    bounds = [count * piece // pieces for piece in range(pieces + 1)] if pieces else [0]
    return (slice(*pair) for pair in itertools.pairwise(bounds))
