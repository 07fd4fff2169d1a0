"""`Aggregator`: means of patch embeddings that arrive in batches."""

from __future__ import annotations

from typing import Literal

import torch

from patchmill.kernels.aggregate import operators, reference, segments
from patchmill.kernels.aggregate.checks import NORMALISE, check_embeddings, check_index


class Aggregator:
    """`aggregate` of everything added, for a fixed number of images and embeddings of size `dim`.

    Sums are kept in float64, [images, dim], so that batching changes results by no more than
    float32 rounding. No gradients.
    """

    def __init__(
        self,
        images: int,
        dim: int,
        normalise: Literal["none", "each", "mean"] = "none",
        device: torch.device | str = "cpu",
    ) -> None:
        if normalise not in NORMALISE:
            raise ValueError(f"normalise is one of {', '.join(NORMALISE)}, not {normalise!r}")
        self.normalise = normalise
        self.counts = torch.zeros(images, dtype=torch.int64, device=device)
        self._sums = torch.zeros(images, dim, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, embeddings: torch.Tensor, index: torch.Tensor) -> None:
        """Add embeddings [n, dim] of patches of the images `index` [n], in any order."""
        check_embeddings(embeddings, self.normalise)
        images, dim = self._sums.shape
        if embeddings.shape[1] != dim or embeddings.device != self._sums.device:
            raise ValueError(
                f"this Aggregator takes embeddings of {dim} numbers on {self._sums.device}, not "
                f"{tuple(embeddings.shape)} on {embeddings.device}: make one for those"
            )
        index = check_index(embeddings, index)
        if not len(index):
            return
        present, local_index = torch.unique(index, return_inverse=True)
        if present[0] < 0 or present[-1] >= images:
            raise ValueError(
                f"the index runs from {present[0]} to {present[-1]}, but there are {images} "
                "images: pass each patch's image, counted from 0"
            )
        sums, counts = self._segment_sums(embeddings, local_index, len(present))
        self._sums[present] += sums
        self.counts[present] += counts

    def _segment_sums(
        self, embeddings: torch.Tensor, index: torch.Tensor, images: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums (float64) and counts, for images that all have patches."""
        offsets, order = segments.sort_by_index(index, images)
        counts, unit_rows = offsets.diff(), self.normalise == "each"
        if embeddings.dtype == torch.float64:
            normalise = "each" if unit_rows else "none"
            means = reference.aggregate(embeddings, index, images, normalise)
        else:
            means, *_ = operators.mean(embeddings, None, offsets, order, unit_rows, False)
            means = means.double()
        return means.mul_(counts[:, None]), counts

    def mean(self) -> torch.Tensor:
        """Means so far, [images, dim] float32; zeros for images without patches.

        More can be added afterwards. One pass over the sums.
        """
        means = torch.empty(self._sums.shape, device=self._sums.device)
        torch.div(self._sums, self.counts.clamp(min=1)[:, None], out=means)
        return reference.unit_rows(means) if self.normalise == "mean" else means
