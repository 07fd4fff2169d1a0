"""CPU backend of aggregation: one pass over the rows, normalised while they are in the cache.

A segment is summed by one thread, its rows in order: results are bit-identical for any number of
threads.
"""

from __future__ import annotations

import numpy as np
import torch

from patchmill.kernels.aggregate.cpu_loops import segment_backward, segment_means
from patchmill.kernels.common.compiling import announce_compilation
from patchmill.kernels.common.floats16 import as_numpy
from patchmill.kernels.common.memory import allocate, can_stream
from patchmill.kernels.common.parallel import parallel_ranges

ELEMENTS_PER_THREAD = 1 << 20  # at least: 0.2 ms of work, twice the time to wake a thread
NO_ORDER, NO_WEIGHTS = np.empty(0, np.int64), np.empty(0, np.float32)


def mean(
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    unit_rows: bool,
    unit_mean: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means [B, d] float32, sums of weights [B], lengths of the means [B] before `unit_mean`."""
    segments, d = len(offsets) - 1, embeddings.shape[1]
    means, totals, lengths = torch.empty(segments, d), torch.empty(segments), torch.empty(segments)
    inputs = as_numpy(embeddings), *_weights_and_order(weights, order), offsets.numpy()
    outputs = means.numpy(), totals.numpy(), lengths.numpy()

    def work(start: int, stop: int) -> None:
        segment_means(*inputs, unit_rows, unit_mean, start, stop, *outputs)

    with announce_compilation():
        parallel_ranges(work, segments, _min_segments(embeddings.numel(), segments))
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
    """Gradients w.r.t. rows [P, d], like embeddings, and weights [P] float32; empty unless wanted.

    `grad_sums` [B, d] is the gradient w.r.t. the segments' weighted sums, `grad_dot_mean` [B] its
    dot product with the mean.
    """
    segments, d = grad_sums.shape
    grad_rows = allocate((rows if need_rows else 0, d), embeddings.dtype)
    grad_weights = torch.empty(rows if need_weights else 0)
    inputs = (
        grad_sums.numpy(), grad_dot_mean.numpy(), as_numpy(embeddings),
        *_weights_and_order(weights, order), offsets.numpy(),
    )  # fmt: skip
    outputs = as_numpy(grad_rows), grad_weights.numpy()
    stream = can_stream(grad_rows, d)

    def work(start: int, stop: int) -> None:
        segment_backward(*inputs, unit_rows, stream, start, stop, *outputs)

    with announce_compilation():
        parallel_ranges(work, segments, _min_segments(rows * d, segments))
    return grad_rows, grad_weights


def _weights_and_order(
    weights: torch.Tensor | None, order: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    return (
        NO_WEIGHTS if weights is None else weights.numpy(),
        NO_ORDER if order is None else order.numpy(),
    )


def _min_segments(numbers: int, segments: int) -> int:
    """Fewest segments worth a thread of their own."""
    return max(1, ELEMENTS_PER_THREAD * segments // max(1, numbers))
