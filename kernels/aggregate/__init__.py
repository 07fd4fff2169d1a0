"""Mean patch embedding of each image (segment mean), with gradients; `Aggregator` for batches.

Values are computed in float32, even under autocast, and rounded once; float64 runs the reference.
Results are bit-identical from run to run on one machine and, on a CPU, for any number of threads.
There is no normalised copy of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from patchmill.kernels.aggregate import operators, reference, segments
from patchmill.kernels.aggregate.aggregator import Aggregator
from patchmill.kernels.aggregate.checks import check_counts, check_embeddings, check_index

__all__ = ["Aggregator", "aggregate"]


def aggregate(
    embeddings: torch.Tensor,
    counts: torch.Tensor | Sequence[int] | None = None,
    index: torch.Tensor | None = None,
    *,
    normalise: Literal["none", "each", "mean"] = "none",
    weights: torch.Tensor | None = None,
    images: int | None = None,
) -> torch.Tensor:
    """Mean of each image's embeddings: [P, d] to [B, d], float32 (float64 for float64).

    Pass either `counts` [B], if the embeddings of an image are consecutive, or `index` [P], the
    image of each embedding in any order, with the number of `images` (by default the largest index
    plus one, which synchronises on a GPU). "each" normalises rows to unit length first, "mean" the
    result; vectors of length up to 1e-12 count as zeros and get no gradient. `weights` [P] are
    relative. An image without patches, or whose weights sum to zero, gives zeros. Gradients flow to
    embeddings and weights.

    Counts and index are validated on their own device. On a GPU that synchronises, so prefer counts
    on the CPU.
    """
    check_embeddings(embeddings, normalise, weights)
    if (counts is None) == (index is None):
        raise ValueError("aggregate takes either counts or an index: pass exactly one of them")
    order = None
    if counts is not None:
        counts = check_counts(counts, images)
        images, offsets = len(counts), segments.offsets_of_counts(counts, embeddings)
    elif index is not None:
        index = check_index(embeddings, index)
        if images is None:
            images = int(index.max()) + 1 if len(index) else 0
        offsets, order = segments.sort_by_index(index, images)
    if embeddings.dtype == torch.float64:
        if index is None:
            index = segments.index_of_offsets(offsets, embeddings)
        return reference.aggregate(embeddings, index, len(offsets) - 1, normalise, weights)
    weights = None if weights is None else weights.float().contiguous()
    unit_rows, unit_mean = normalise == "each", normalise == "mean"
    results = operators.mean(embeddings, weights, offsets, order, unit_rows, unit_mean)
    return results[0]  # type: ignore[no-any-return]
