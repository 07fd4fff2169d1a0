"""On the CPU: products of blocks by the BLAS, and a softmax that takes in one block at a time.

A block of logits is made, used and overwritten in the processor's cache. The gradient of a log-sum
of exponentials by its query is the mean of the keys under that softmax, as attention would give
with the keys for values: so one pass makes the loss and its gradient by the queries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from patchmill.kernels.contrast.pairing import QUEUE, Pairing

# Queries and logits of a block, at most; a quarter of that takes the same time. As many numbers of
# keys are converted at once.
ROWS, LOGITS = 1024, 1024 * 1024
# A sum that is longer the BLAS may share out among its threads, and round as their number says.
# Costs 5 % of the time of 256 queries or more. (One row or one number a row it shares out anyway.)
DEEP = 192
LOWEST = -1e38  # below every logit, and yet a number: less itself it is 0


def forward(
    queries: torch.Tensor,
    companions: torch.Tensor,
    queue: torch.Tensor | None,
    temperature: float,
    pairing: Pairing,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, log-denominators [N] and, if `gradient`, the loss's gradient by the queries [N, d]."""
    scaled = queries.float() / temperature
    targets = pairing.targets(companions)
    aims = torch.linalg.vecdot(scaled, targets)
    lse, losses = torch.empty_like(aims), torch.empty_like(aims)
    slope = torch.empty_like(scaled) if gradient else scaled.new_empty(0, scaled.shape[1])
    memory = Memory(len(queries), queries.shape[1])
    for rows in spans(len(queries), ROWS):
        softmax = Softmax.start(aims[rows], targets[rows], pairing.kind == QUEUE, gradient)
        if pairing.kind != QUEUE:
            softmax.take_in(
                scaled[rows], companions, memory, pairing if pairing.alone else None, rows
            )
        if queue is not None:
            softmax.take_in(scaled[rows], queue, memory)
        height = softmax.sum.log()
        torch.add(softmax.peak - aims[rows], height, out=losses[rows])
        torch.add(softmax.peak, height, out=lse[rows])
        if softmax.mean is not None:
            torch.sub(softmax.mean / softmax.sum[:, None], targets[rows], out=slope[rows])
    return losses.mean(), lse, slope.div_(len(queries) * temperature)


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
    plain = queries.float()
    scaled = plain / temperature
    out = torch.zeros(near.shape, dtype=torch.float32)
    memory = Memory(len(queries), queries.shape[1], 2 if keys is None else 1)
    for block in spans(len(near), memory.columns):
        some = near[block].float()
        for part in spans(len(queries), ROWS):
            logits = memory.product(some, scaled[part])
            if companions and pairing.alone:
                leave_out(logits.T, pairing, part, block)
            if keys is None:
                torch.sub(logits, lse[block, None], out=memory.second(logits)).exp_()
            weights = logits.sub_(lse[part]).exp_()
            if keys is None:
                weights += memory.second(logits)
            add_product(out[block], weights, plain[part])
    if companions:
        pairing.subtract_pull(out, plain, 2 if keys is None else 1)
    return out.mul_(gradient / (len(queries) * temperature)).to(near.dtype)


@dataclass
class Softmax:
    """Of rows of logits that come a block at a time, each sum less `peak` in the exponent."""

    peak: torch.Tensor
    sum: torch.Tensor
    mean: torch.Tensor | None  # of the keys, times `sum`

    @classmethod
    def start(
        cls, aims: torch.Tensor, targets: torch.Tensor, counts: bool, gradient: bool
    ) -> Softmax:
        """Of the targets, if they count already, or of nothing."""
        if counts:
            return cls(aims, torch.ones_like(aims), targets.clone() if gradient else None)
        lowest = torch.full_like(aims, LOWEST)
        return cls(lowest, torch.zeros_like(aims), torch.zeros_like(targets) if gradient else None)

    def take_in(
        self,
        scaled: torch.Tensor,
        keys: torch.Tensor,
        memory: Memory,
        pairing: Pairing | None = None,
        rows: slice = slice(0),
    ) -> None:
        """All keys; by `pairing`, where these are the queries `rows`, all but the query itself."""
        for block in spans(len(keys), memory.columns):
            some = keys[block].float()
            logits = memory.product(scaled, some)
            if pairing is not None:
                leave_out(logits, pairing, rows, block)
            peak = torch.maximum(self.peak, logits.amax(1))
            shrink = (self.peak - peak).exp_()
            weights = logits.sub_(peak[:, None]).exp_()
            self.sum = self.sum.mul(shrink).add_(weights.sum(1))
            self.peak = peak
            if self.mean is not None:
                add_product(self.mean.mul_(shrink[:, None]), weights, some)


class Memory:
    """For blocks of logits, used again and again."""

    def __init__(self, queries: int, d: int, blocks: int = 1) -> None:
        self.columns = max(LOGITS // max(min(queries, ROWS), d), 1)
        self._blocks = [torch.empty(LOGITS) for _ in range(blocks)]

    def product(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        shape = len(left), len(right)
        out = self._blocks[0][: shape[0] * shape[1]].view(shape)
        first, *others = spans(left.shape[1], DEEP)
        torch.mm(left[:, first], right[:, first].T, out=out)
        for part in others:
            out.addmm_(left[:, part], right[:, part].T)
        return out

    def second(self, like: torch.Tensor) -> torch.Tensor:
        return self._blocks[1][: like.numel()].view_as(like)


def leave_out(logits: torch.Tensor, pairing: Pairing, queries: slice, companions: slice) -> None:
    for square in pairing.diagonals(queries, companions):
        logits[square].diagonal().fill_(-torch.inf)


def add_product(out: torch.Tensor, weights: torch.Tensor, rows: torch.Tensor) -> None:
    for part in spans(len(rows), DEEP):
        out.addmm_(weights[:, part], rows[part])


def spans(count: int, most: int) -> Iterator[slice]:
    """[0, count) in slices of at most `most`, all of them as long as the others, or one longer."""
    pieces = -(-count // most)
    bounds = [count * piece // pieces for piece in range(pieces + 1)] if pieces else [0]
    return (slice(*pair) for pair in itertools.pairwise(bounds))
