"""Dense patches of images: normalisation and unfold in one pass, with gradients (fold).

Values are computed in float32, even under autocast, and rounded once; float64 runs the reference.
Results are bit-identical from run to run on one machine and, on a CPU, for any number of threads.
Extra memory does not grow with the number of patches: there is no unfolded copy of the images
beside the patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from patchmill.kernels.grid import operators, reference
from patchmill.kernels.grid.checks import check_images
from patchmill.kernels.grid.windows import Patches, window_layout

__all__ = ["Patches", "grid"]


def grid(
    images: torch.Tensor | Sequence[torch.Tensor],
    size: int,
    stride: int | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Patches:
    """All `size` x `size` windows of each image, every `stride` pixels (by default `size`).

    Images are [B, C, H, W], uint8 or float with any strides, or a sequence of uint8 [H, W, C] of
    any heights and widths, as decoders return them. uint8 is scaled to [0, 1]; then (value - mean)
    / std is applied per channel, if given. Gradients flow to float images: overlapping windows add
    up (fold).
    """
    stride = size if stride is None else stride
    if not isinstance(images, torch.Tensor):
        images = [torch.as_tensor(image) for image in images]
    shapes, device = check_images(images, size, stride, mean, std, dtype)
    counts, index, positions = window_layout(shapes, size, stride, device)
    means, stds = (None if values is None else list(values) for values in (mean, std))
    if not isinstance(images, torch.Tensor):
        if dtype == torch.float64:
            planes = [image.permute(2, 0, 1) for image in images]
            patches = reference.grid(planes, size, stride, means, stds, dtype)
        else:
            patches = operators.unfold_ragged(
                images, index, positions, size, stride, means, stds, dtype
            )
    elif torch.float64 in (images.dtype, dtype):
        patches = reference.grid(list(images), size, stride, means, stds, dtype)
    else:
        patches = operators.unfold(images, size, stride, means, stds, dtype)
    return Patches(patches, counts, index, positions)
