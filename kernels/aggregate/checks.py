"""Argument checks for `aggregate` and `Aggregator`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
NORMALISE = ("none", "each", "mean")


def check_embeddings(
    embeddings: torch.Tensor, normalise: str, weights: torch.Tensor | None = None
) -> None:
    """Validate embeddings [P, d], and weights [P] if given."""
    if embeddings.ndim != 2 or embeddings.shape[1] == 0 or embeddings.dtype not in FLOATS:
        raise ValueError(
            f"aggregate takes embeddings as rows [P, d] of float32, float16 or bfloat16, not "
            f"{embeddings.dtype} {tuple(embeddings.shape)}: flatten or convert them"
        )
    if normalise not in NORMALISE:
        raise ValueError(f"normalise is one of {', '.join(NORMALISE)}, not {normalise!r}")
    if weights is not None and (
        weights.shape != embeddings.shape[:1]
        or weights.dtype not in FLOATS
        or weights.device != embeddings.device
    ):
        raise ValueError(
            f"aggregate takes weights as {len(embeddings)} floats on {embeddings.device}, one for "
            f"each embedding, not {weights.dtype} {tuple(weights.shape)} on {weights.device}"
        )


def check_counts(counts: torch.Tensor | Sequence[int], images: int | None) -> torch.Tensor:
    """Validate counts [B]; return them as an int64 tensor."""
    if not isinstance(counts, torch.Tensor):
        counts = torch.tensor([int(count) for count in counts], dtype=torch.int64)
    if counts.ndim != 1 or counts.is_floating_point():
        raise ValueError(
            f"aggregate takes counts as integers [B], not {counts.dtype} {tuple(counts.shape)}"
        )
    if images is not None and images != len(counts):
        raise ValueError(f"there are {len(counts)} counts for {images} images: pass one for each")
    return counts.long()


def check_index(embeddings: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Validate an index [P]; return it as a contiguous int64 tensor."""
    if (
        index.shape != embeddings.shape[:1]
        or index.is_floating_point()
        or index.device != embeddings.device
    ):
        raise ValueError(
            f"an index is {len(embeddings)} integers on {embeddings.device}, the image of "
            f"each embedding, not {index.dtype} {tuple(index.shape)} on {index.device}"
        )
    return index.long().contiguous()
