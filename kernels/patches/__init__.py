"""Dense patches of images, and means over the embeddings of an image's patches.

Numbers are computed in float32, whatever the autocast, and rounded once; float64 goes through the
reference. Results are the same to the bit in every run on one machine, and on a CPU whatever the
number of threads. Nothing is made that grows with the number of patches but what is asked for: no
unfolded copy of the images, no normalised copy of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from patchmill.kernels.bags import bag_loss, coding_rate
from patchmill.kernels.patches import grouping, operators, reference
from patchmill.kernels.patches.aggregator import Aggregator
from patchmill.kernels.patches.checks import (
    check_counts,
    check_embeddings,
    check_images,
    check_index,
)
from patchmill.kernels.patches.windows import Patches, places

__all__ = ["Aggregator", "Patches", "aggregate", "bag_loss", "coding_rate", "grid"]


def grid(
    images: torch.Tensor | Sequence[torch.Tensor],
    size: int,
    stride: int | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Patches:
    """All windows of `size` x `size`, every `stride` pixels (by default `size`), inside each image.

    Images are [B, C, H, W], of bytes or floats and any strides, or a sequence of bytes [H, W, C]
    of any heights and widths, as decoders give them. Bytes become 0 to 1; then comes (value - mean)
    / std by channel, if given. A gradient goes to images of floats: overlapping windows add up.
    """
    stride = size if stride is None else stride
    if not isinstance(images, torch.Tensor):
        images = [torch.as_tensor(image) for image in images]
    shapes, device = check_images(images, size, stride, mean, std, dtype)
    counts, index, positions = places(shapes, size, stride, device)
    means, stds = (None if it is None else list(it) for it in (mean, std))
    if not isinstance(images, torch.Tensor):
        if dtype == torch.float64:
            planes = [image.permute(2, 0, 1) for image in images]
            patches = reference.grid(planes, size, stride, means, stds, dtype)
        else:
            patches = operators.grid_ragged(
                images, index, positions, size, stride, means, stds, dtype
            )
    elif torch.float64 in (images.dtype, dtype):
        patches = reference.grid(list(images), size, stride, means, stds, dtype)
    else:
        patches = operators.grid(images, size, stride, means, stds, dtype)
    return Patches(patches, counts, index, positions)


def aggregate(
    embeddings: torch.Tensor,
    counts: torch.Tensor | Sequence[int] | None = None,
    index: torch.Tensor | None = None,
    *,
    normalise: Literal["none", "each", "mean"] = "none",
    weights: torch.Tensor | None = None,
    images: int | None = None,
) -> torch.Tensor:
    """The mean of each image's embeddings: [P, d] to [B, d], float32 (float64 of float64).

    Whose they are is said by `counts` [B], where those of an image lie together, or by `index` [P]
    in any order, for so many `images` (else up to the largest index, which on a GPU is waited for).
    "each" takes rows over their length, "mean" the result over its length; what is no longer than
    1e-12 counts as zeros and gets no gradient. `weights` [P] are relative. An image without
    patches, or whose weights sum to zero, gives zeros. Gradients go to embeddings and weights.

    Counts and index are checked where they are: on a GPU that waits for it, so rather give counts
    on the CPU, which costs no wait.
    """
    check_embeddings(embeddings, normalise, weights)
    if (counts is None) == (index is None):
        raise ValueError("aggregate takes either counts or an index: say in one way whose rows are")
    order = None
    if counts is not None:
        counts = check_counts(counts, images)
        images, offsets = len(counts), grouping.offsets_of(counts, embeddings)
    elif index is not None:
        index = check_index(embeddings, index)
        if images is None:
            images = int(index.max()) + 1 if len(index) else 0
        offsets, order = grouping.ordered(index, images)
    if embeddings.dtype == torch.float64:
        owners = grouping.owners(offsets, embeddings) if index is None else index
        return reference.aggregate(embeddings, owners, len(offsets) - 1, normalise, weights)
    weights = None if weights is None else weights.float().contiguous()
    each, unit = normalise == "each", normalise == "mean"
    return operators.mean(embeddings, weights, offsets, order, each, unit)[0]  # type: ignore[no-any-return]
