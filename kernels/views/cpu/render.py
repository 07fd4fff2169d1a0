"""CPU renderer: all views of one image in one call, written straight into the batch's memory.

A pipeline's threads call `render_image` and `render_pasted`, one image at a time while it is in
their cache; both hold no lock and allocate nothing. `render` takes a list of images, for tests and
for users with their own loader.

All of it is compiled without fastmath, and multiplies and adds in two steps: pixels are the same
for any vector width and with or without fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from patchmill.kernels.common.jit import jit_ieee, jit_inline
from patchmill.kernels.views import layout
from patchmill.kernels.views.cpu.blur import blur, blur_bytes
from patchmill.kernels.views.cpu.colour import colour
from patchmill.kernels.views.cpu.encode import encode_bytes, encode_view
from patchmill.kernels.views.cpu.paste import paste, paste_bytes
from patchmill.kernels.views.cpu.resize import UNIT, carve, plane_pitch, resize, resize_bytes
from patchmill.kernels.views.decisions import Target
from patchmill.kernels.views.layout import elements, views_by_group

if TYPE_CHECKING:
    import torch

MAX_BLUR_RADIUS = 31
NO_MASK, NO_IMAGE = np.empty((0, 0), np.uint8), np.empty((0, 0, 3), np.uint8)

OptionalArrays = Sequence[np.ndarray | None]  # one per image, or None


def slots(targets: Sequence[Target], batch: int, as_bytes: bool) -> np.ndarray:
    """One SLOT per view, scaled for the planes' fixed point."""
    return layout.slots(targets, batch, as_bytes, UNIT)


@jit_ieee
def scratch_bytes(height, width, size):
    """Scratch bytes of `render_image` for an image of these sides and views up to `size`."""
    stage = resize_bytes(height, width, size)
    stage = max(stage, blur_bytes(size, MAX_BLUR_RADIUS), encode_bytes(size))
    return stage + 2 * 3 * size * plane_pitch(size) + 4096


@jit_ieee
def pasted_scratch_bytes(
    height, width, mask_height, mask_width, background_height, background_width, size
):  # fmt: skip
    """Scratch bytes of `render_pasted`; sides are 0 if there is no mask or background."""
    pasting = paste_bytes(mask_height, mask_width, background_height, background_width, size)
    pasting += 2 * 3 * size * plane_pitch(size) + 4096
    return max(scratch_bytes(height, width, size), pasting)


@jit_ieee
def render_image(image, rows, slots, sample, half, channels_last, out, scratch):
    """Render the views of `image` (uint8 HWC) that `rows` describe into the flat `out`.

    `sample` is the image's index in the batch; `half`: a 16-bit `out` is float16, not bfloat16.
    """
    for v in range(len(rows)):
        render_view(image, None, None, rows[v], slots[v], sample, half, channels_last, out, scratch)


@jit_ieee
def render_pasted(image, mask, background, rows, slots, sample, half, channels_last, out, scratch):
    """`render_image` with copy-paste: by `mask` (uint8 HW), onto `background` (uint8 HWC).

    Pass NO_MASK or NO_IMAGE if there is none: views that would need it stay unpasted.
    """
    for v in range(len(rows)):
        render_view(
            image, mask, background, rows[v], slots[v], sample, half, channels_last, out, scratch
        )


@jit_inline
def render_view(image, mask, background, row, slot, sample, half, channels_last, out, scratch):
    size = slot.size
    turns, flip = row.turns & 3, row.flip != 0
    # All 8 poses are free: reversed filter tables mirror the view; planes are transposed.
    reverse_x = flip != (turns == 1 or turns == 2)
    reverse_y = turns >= 2
    raw, scratch_left = carve(scratch, 2 * 3 * size * plane_pitch(size))
    planes = raw.view(np.int16)
    resize(image, row, size, slot.bicubic != 0, reverse_x, reverse_y, planes, scratch_left)
    if mask is not None:  # without masks this branch is not compiled at all
        height, width = image.shape[0], image.shape[1]
        paste(
            height, width, mask, background, row, size, reverse_x, reverse_y, planes, scratch_left
        )
    colour(row, size, planes, scratch_left)
    transposed = turns & 1 == 0
    if row.sigma > 0:
        blur(row, size, planes, scratch_left)
        transposed = not transposed
    offset = slot.offset + sample * slot.stride
    encode_view(planes, transposed, row, slot, half, channels_last, out, offset, scratch_left)


class Scratch:
    """Scratch memory of one thread, grown to the largest image rendered."""

    def __init__(self) -> None:
        self.memory = np.empty(0, np.uint8)

    def reserve(
        self,
        height: int,
        width: int,
        size: int,
        mask: tuple[int, ...] = (0, 0),
        background: tuple[int, ...] = (0, 0),
    ) -> np.ndarray:
        """Memory for an image and views of these sizes; `mask` and `background` are shapes."""
        if mask[0]:
            need = pasted_scratch_bytes(height, width, *mask[:2], *background[:2], size)
        else:
            need = scratch_bytes(height, width, size)
        return self.at_least(need)

    def at_least(self, need: int) -> np.ndarray:
        """At least `need` bytes of memory, aligned to cache lines."""
        if need > len(self.memory):
            memory = np.empty(need * 5 // 4 + 64, np.uint8)
            self.memory = memory[-memory.ctypes.data % 64 :]
        return self.memory


def render(
    images: Sequence[np.ndarray],
    rows: np.ndarray,
    targets: Sequence[Target],
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    masks: OptionalArrays | None = None,
    backgrounds: OptionalArrays | None = None,
) -> dict[str, torch.Tensor]:
    """Fast `reference.render`: uint8 HWC images and rows [N, V] to [N, count, 3, size, size]."""
    import torch

    sizes = np.repeat([t.size for t in targets], [t.count for t in targets])
    if (np.minimum(rows["full_h"], rows["full_w"]) < sizes).any():
        raise ValueError("a view cannot be larger than the resized box that it is a window of")
    dtype = dtype or torch.float32
    flat = torch.empty(elements(targets, len(images)), dtype=dtype)
    memory, half = flat_numpy(flat)
    table = slots(targets, len(images), dtype == torch.uint8)
    largest, scratch = max(target.size for target in targets), Scratch()
    for sample, image in enumerate(images):
        image, mask = np.ascontiguousarray(image), masks[sample] if masks else None
        if mask is None:
            reserved = scratch.reserve(image.shape[0], image.shape[1], largest)
            render_image(image, rows[sample], table, sample, half, channels_last, memory, reserved)
            continue
        background = backgrounds[sample] if backgrounds else None
        mask = np.ascontiguousarray(mask)
        background = NO_IMAGE if background is None else np.ascontiguousarray(background)
        height, width = image.shape[:2]
        reserved = scratch.reserve(height, width, largest, mask.shape, background.shape)
        render_pasted(
            image, mask, background, rows[sample], table, sample, half, channels_last, memory,
            reserved,
        )  # fmt: skip
    return views_by_group(flat, targets, len(images), channels_last)


def flat_numpy(flat: torch.Tensor) -> tuple[np.ndarray, bool]:
    """A flat tensor's memory for the kernels (16-bit floats as uint16), and True for float16."""
    import torch

    if flat.dtype in (torch.bfloat16, torch.float16):
        return flat.view(torch.uint16).numpy(), flat.dtype == torch.float16
    return flat.numpy(), False
