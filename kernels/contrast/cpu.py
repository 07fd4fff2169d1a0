"""On the CPU: products of blocks by the BLAS, and a softmax that takes in one block at a time.

A block of logits is made, used and overwritten in one processor's own cache. The gradient of a
log-sum of exponentials by its query is the mean of the keys under that softmax, as attention would
give with the keys for values: so one pass makes the loss and its gradient by the queries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from patchmill.kernels.common.jit import announce_compilation
from patchmill.kernels.common.parallel import parallel_for
from patchmill.kernels.contrast.cpu_loops import soften, weigh
from patchmill.kernels.contrast.pairing import QUEUE, Pairing

ROWS, COLUMNS = 128, 1024  # of a block of logits, at most: half a MiB
FEW = 192  # rows whose logits may all be in memory; sums as long come out alike in any threads
TASKS = 16  # at least, where there are as many blocks: few queries meet the keys in so many groups
LOWEST = -1e38  # below every logit, and yet a number: less itself it is 0

Block = tuple[torch.Tensor, slice, bool]  # rows of keys, which of them, whether companions


def forward(
    queries: torch.Tensor,
    companions: torch.Tensor,
    queue: torch.Tensor | None,
    temperature: float,
    pairing: Pairing,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, log-denominators [N] and, if `gradient`, the loss's gradient by the queries [N, d].

    Where the queries are their own companions, that is the gradient in both roles.
    """
    if gradient and pairing.alone and companions is queries:
        if max(queries.shape) <= FEW:
            return at_once(queries.float(), temperature, pairing)
        loss, lse, _ = forward(queries, companions, None, temperature, pairing, False)
        return loss, lse, pull(queries.float(), queries, lse, temperature, pairing, True)
    blocks: list[Block] = []
    if pairing.kind != QUEUE:
        blocks += [(companions, some, True) for some in spans(len(companions), COLUMNS)]
    if queue is not None:
        blocks += [(queue, some, False) for some in spans(len(queue), COLUMNS)]
    parts = list(spans(len(queries), ROWS))
    groups = list(spans(len(blocks), -(-len(blocks) * len(parts) // TASKS)))
    peaks, sums = torch.empty(2, len(groups), len(queries))
    means = torch.empty(len(groups), *queries.shape) if gradient else None

    def work(task: int) -> None:
        part, group = parts[task // len(groups)], task % len(groups)
        mean = None if means is None else means[group, part].zero_()
        its = softmax(queries, part, blocks[groups[group]], 1 / temperature, pairing, mean)
        peaks[group, part], sums[group, part] = its

    with announce_compilation():
        parallel_for(work, len(parts) * len(groups))
    return merged(queries, pairing.targets(companions), temperature, pairing, peaks, sums, means)


def merged(
    queries: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    pairing: Pairing,
    peaks: torch.Tensor,
    sums: torch.Tensor,
    means: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `forward` gives, of groups of keys: their peaks and sums [groups, N], `softmax` each."""
    aims = torch.linalg.vecdot(queries.float(), targets).div_(temperature)
    peak = peaks.amax(0)
    if pairing.kind == QUEUE:  # its target is in a query's denominator, too
        peak = torch.maximum(peak, aims)
    shrink = peaks.sub_(peak).exp_()
    own = (aims - peak).exp_()
    total = sums.mul_(shrink).sum(0)
    if pairing.kind == QUEUE:
        total += own
    height = total.log()
    loss, lse = (height + (peak - aims)).mean(), height + peak
    if means is None:
        return loss, lse, targets.new_empty(0, targets.shape[1])
    slope = means.mul_(shrink[:, :, None]).sum(0)
    if pairing.kind == QUEUE:
        slope.addcmul_(own[:, None], targets)
    slope.div_(total[:, None]).sub_(targets)
    return loss, lse, slope.div_(len(queries) * temperature)


def at_once(
    queries: torch.Tensor, temperature: float, pairing: Pairing
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `forward` gives of queries that are their own companions."""
    targets = pairing.targets(queries)
    logits = torch.mm(queries, queries.T).div_(temperature).fill_diagonal_(-torch.inf)
    lse = logits.logsumexp(1)
    loss = (lse - torch.linalg.vecdot(queries, targets).div_(temperature)).mean()
    chances = logits.sub_(lse[:, None]).exp_()
    slope = torch.addmm(targets, chances + chances.T, queries, beta=-2)
    return loss, lse, slope.div_(len(queries) * temperature)


def softmax(
    queries: torch.Tensor,
    part: slice,
    blocks: Sequence[Block],
    scale: float,
    pairing: Pairing,
    mean: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest logit of each query, and the sum of exponentials of all less that one.

    To `mean`, if given, are added the keys, each times its exponential.
    """
    rows = queries[part].float()
    peak = rows.new_full((len(rows),), LOWEST)
    total, added = torch.zeros_like(peak), torch.empty_like(peak)
    memory = rows.new_empty(len(rows) * COLUMNS)
    for keys, block, companions in blocks:
        some = keys[block].float()
        products = product(rows, some, memory)
        if companions:
            leave_out(products, pairing, part, block)
        higher = torch.maximum(peak, products.amax(1).mul_(scale))
        shrink = peak.sub_(higher).exp_()
        soften(products.numpy(), np.float32(scale), higher.numpy(), added.numpy())
        total.mul_(shrink).add_(added)
        if mean is not None:
            mean.mul_(shrink[:, None]).addmm_(products, some)
        peak = higher
    return peak, total


def pulled(
    gradient: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor | None,
    lse: torch.Tensor,
    temperature: float,
    pairing: Pairing,
    companions: bool,
) -> torch.Tensor:
    """The gradient by the keys, which are the companions or the queue.

    Without `keys` the queries are their own companions: the gradient by them, in both roles.
    """
    near = queries if keys is None else keys
    meant = pairing if companions else None
    out = pull(queries.float(), near, lse, temperature, meant, keys is None)
    return out.mul_(gradient).to(near.dtype)


def pull(
    queries: torch.Tensor,
    keys: torch.Tensor,
    lse: torch.Tensor,
    temperature: float,
    pairing: Pairing | None,
    mutual: bool,
) -> torch.Tensor:
    """The loss's gradient by the keys, float32; if `mutual`, these are the queries: in both roles.

    `pairing` is that of companions, None for a queue.
    """
    out = torch.zeros(keys.shape, dtype=torch.float32)
    blocks, scale = list(spans(len(keys), ROWS)), np.float32(1 / temperature)

    def work(task: int) -> None:
        block = blocks[task]
        near = keys[block].float()
        memory = near.new_empty(len(near) * COLUMNS)
        others = lse[block if mutual else slice(0)].numpy()
        for part in spans(len(queries), COLUMNS):
            some = queries[part]
            products = product(near, some, memory)
            if pairing is not None:
                leave_out(products.T, pairing, part, block)
            weigh(products.numpy(), scale, lse[part].numpy(), others)
            out[block].addmm_(products, some)

    with announce_compilation():
        parallel_for(work, len(blocks))
    if pairing is not None:
        pairing.subtract_pull(out, queries, 2 if mutual else 1)
    return out.div_(len(queries) * temperature)


def product(left: torch.Tensor, right: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """Of all rows of both, in that memory."""
    out = memory[: len(left) * len(right)].view(len(left), len(right))
    return torch.mm(left, right.T, out=out)


def leave_out(logits: torch.Tensor, pairing: Pairing, queries: slice, companions: slice) -> None:
    """A query among the companions."""
    for square in pairing.diagonals(queries, companions) if pairing.alone else ():
        logits[square].diagonal().fill_(-torch.inf)


def spans(count: int, most: int) -> Iterator[slice]:
    """[0, count) in slices of at most `most`, all of them as long as the others, or one longer."""
    pieces = -(-count // most)
    bounds = [count * piece // pieces for piece in range(pieces + 1)] if pieces else [0]
    return (slice(*pair) for pair in itertools.pairwise(bounds))
