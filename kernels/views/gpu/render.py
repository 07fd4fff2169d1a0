"""The GPU renderer: views of a ragged batch of uint8 images, straight into the batch's memory.

At most three launches, whatever the groups: resize, which ends there for views that need nothing
else; contrast, for those that wait for their mean luma; blur. (Three for each kind of group, where
a recipe mixes bicubic and bilinear ones, or views of at most 16 pixels and larger ones.) One upload
holds everything that the kernels read. Nothing waits for the GPU; two runs are equal to the bit.

Memory beside the batch itself: 2 bytes for each of its numbers, if any view has contrast or blur,
and 4 bytes for each tile of 32 x 32 pixels, where every view counts as much as the largest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import Target
from patchmill.kernels.views.gpu import launch as gpu_launch
from patchmill.kernels.views.gpu.tables import Images, Tensors


def render(
    images: Sequence[torch.Tensor],
    rows: np.ndarray,
    targets: Sequence[Target],
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    out: torch.Tensor | None = None,
    stream: torch.cuda.Stream | None = None,
    masks: Tensors | None = None,
    companions: Tensors | None = None,
) -> dict[str, torch.Tensor]:
    """As `reference.render`, for uint8 HWC tensors on a device: {group: [N, count, 3, size, size]}.

    Work is queued on `stream`, or the current one; the images must live until it is done. `out` is
    flat memory for the batch, of `layout.elements` numbers; its type then is the batch's.
    """
    if out is None and not images:
        raise ValueError("no images, and no memory that would say on which device the views belong")
    device = images[0].device if out is None else out.device
    pictures = [*images, *(masks or ()), *(companions or ())]
    if stray := [it.device for it in pictures if it is not None and it.device != device]:
        raise ValueError(f"images and views must be on one device, not on {device} and {stray[0]}")
    with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
        if out is None:
            numbers = layout.elements(targets, len(images))
            out = torch.empty(numbers, dtype=dtype, device=device)
        render_into(out, Images.of(images, masks, companions), rows, targets, channels_last)
    return layout.shaped(out, targets, len(images), channels_last)


def render_into(
    out: torch.Tensor,
    images: Images,
    rows: np.ndarray,
    targets: Sequence[Target],
    channels_last: bool = False,
) -> None:
    """Queue, on the current stream, what fills the flat `out` with the views of `images`.

    For images that are not tensors, such as a decoder's; `layout.shaped` gives the groups of `out`.
    """
    if len(images.pointers) == 0:
        return
    with torch.cuda.device(out.device) if out.is_cuda else contextlib.nullcontext():
        for launch in gpu_launch.launches(out, images, rows, targets, channels_last):
            launch()
