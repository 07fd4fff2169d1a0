"""View rendering: decoded uint8 images and decision rows in, tensors of augmented views out."""

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
    """Render views of uint8 HWC images on their device: {group: [N, count, 3, size, size]}.

    `images` are NumPy arrays, CPU tensors or CUDA tensors; `rows` is [N, views]. Both renderers
    take the options `dtype`, `channels_last`, `masks` and `backgrounds`; the GPU renderer also
    takes `out` and `stream`.
    """
    if any(getattr(image, "is_cuda", False) for image in images):
        from patchmill.kernels.views.gpu.render import render as render_on_gpu

        return render_on_gpu(images, rows, targets, **options)
    from patchmill.kernels.views.cpu.render import render as render_on_cpu

    return render_on_cpu([np.asarray(image) for image in images], rows, targets, **options)
