"""`Aggregator`: the means of patches' embeddings that come some at a time."""

from __future__ import annotations

from typing import Literal

import torch

from patchmill.kernels.patches import grouping, operators, reference
from patchmill.kernels.patches.checks import NORMALISE, check_embeddings, check_index


class Aggregator:
    """As `aggregate` of all that was added, for so many images and embeddings of `dim` numbers.

    Sums are kept in float64, 8 bytes for each number of [images, dim]: so that which patches came
    together does not matter beyond the rounding of float32. Gradients are not kept.
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
        """Embeddings [n, dim] of patches of the images `index` [n], in any order."""
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
        shown, place = torch.unique(index, return_inverse=True)
        if shown[0] < 0 or shown[-1] >= images:
            raise ValueError(
                f"the index runs from {shown[0]} to {shown[-1]}, which are not all among {images} "
                "images: give each patch the number of its image"
            )
        sums, counts = self._summed(embeddings, place, len(shown))
        self._sums[shown] += sums
        self.counts[shown] += counts

    def _summed(
        self, embeddings: torch.Tensor, index: torch.Tensor, images: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of float64 and counts, for images that all have patches."""
        offsets, order = grouping.ordered(index, images)
        counts, each = offsets.diff(), self.normalise == "each"
        if embeddings.dtype == torch.float64:
            inner = "each" if each else "none"
            means = reference.aggregate(embeddings, index, images, inner)
        else:
            means = operators.mean(embeddings, None, offsets, order, each, False)[0].double()
        return means.mul_(counts[:, None]), counts

    def mean(self) -> torch.Tensor:
        """[images, dim] float32, zeros for images without patches yet; adding may go on after it.

        One pass over the sums: little beside the network that makes as many embeddings.
        """
        means = torch.empty(self._sums.shape, device=self._sums.device)
        torch.div(self._sums, self.counts.clamp(min=1)[:, None], out=means)
        return reference.directions(means) if self.normalise == "mean" else means
