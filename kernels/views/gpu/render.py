"""GPU renderer: views of a ragged batch of uint8 images, written straight into the batch's memory.

`weigh` computes the filters' weights. Then each chunk of images takes three launches, for any
number of groups: `resize` finishes views that need nothing else, `contrast` continues those that
need their mean luma, `blur` is last. (Three per kernel variant, if a recipe mixes bicubic and
bilinear groups, or views of at most 16 pixels and larger ones.) Kernels pass planes to each other
in memory that every chunk reuses, small enough to stay in the L2 cache; launches on one stream are
ordered, which makes the reuse safe. Without planes the batch is one chunk. One upload holds all
tables. Nothing waits for the GPU; runs are bit-identical.

Memory besides the batch: 2 bytes per element of a chunk if any view has contrast or blur, at most
32 MiB (or one image's), and 4 bytes per tile of 32 x 32 pixels, with every view counted as the
largest. For the weights, 64 bytes per row and column of source pixels of each row and column of
tiles: about 0.4 MB per image for DINO's views.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import torch

from patchmill.kernels.common.dispatch import device_guard
from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import Target
from patchmill.kernels.views.gpu import launch as gpu_launch
from patchmill.kernels.views.gpu.tables import Images, OptionalTensors


def render(
    images: Sequence[torch.Tensor],
    rows: np.ndarray,
    targets: Sequence[Target],
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    out: torch.Tensor | None = None,
    stream: torch.cuda.Stream | None = None,
    masks: OptionalTensors | None = None,
    backgrounds: OptionalTensors | None = None,
) -> dict[str, torch.Tensor]:
    """Fast `reference.render`: uint8 HWC tensors on a GPU to {group: [N, count, 3, size, size]}.

    Work is queued on `stream`, or the current one; the images must live until it is done. `out` is
    flat memory for the batch, of `layout.elements` elements, and overrides `dtype`.
    """
    if out is None and not images:
        raise ValueError("no images and no out: the device to render on is unknown; pass out")
    device = images[0].device if out is None else out.device
    inputs = [*images, *(masks or ()), *(backgrounds or ())]
    if stray := [one.device for one in inputs if one is not None and one.device != device]:
        raise ValueError(f"images and views must be on one device, not on {device} and {stray[0]}")
    with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
        if out is None:
            size = layout.elements(targets, len(images))
            out = torch.empty(size, dtype=dtype, device=device)
        render_into(out, Images.of(images, masks, backgrounds), rows, targets, channels_last)
    return layout.views_by_group(out, targets, len(images), channels_last)


def render_into(
    out: torch.Tensor,
    images: Images,
    rows: np.ndarray,
    targets: Sequence[Target],
    channels_last: bool = False,
) -> None:
    """Queue, on the current stream, the launches that fill the flat `out` with views of `images`.

    For images that are not tensors, such as those of a decoder; `layout.views_by_group` splits
    `out`.
    """
    if len(images.pointers) == 0:
        return
    with device_guard(out):
        for launch in gpu_launch.launches(out, images, rows, targets, channels_last):
            launch()
