"""Rendering: decoded images and rows of decisions in, tensors of views out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.kernels.views.decisions import Target

if TYPE_CHECKING:
    import torch


def render(
    images: Sequence[Any], rows: np.ndarray, targets: Sequence[Target], **options: Any
) -> dict[str, torch.Tensor]:
    """The views of uint8 HWC images, made where the images are: {group: [N, count, 3, size, size]}.

    `images` are NumPy arrays or CPU tensors, or CUDA tensors; `rows` is [N, views]. Both renderers
    take `dtype` and `channels_last`; the GPU's also takes `out` and `stream`.
    """
    if any(getattr(image, "is_cuda", False) for image in images):
        from patchmill.kernels.views.gpu import render as gpu

        return gpu.render(images, rows, targets, **options)
    from patchmill.kernels.views.cpu import render as cpu

    return cpu.render([np.asarray(image) for image in images], rows, targets, **options)
