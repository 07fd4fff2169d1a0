"""The CPU renderer: every view of one image in one call, straight into the batch's memory.

`render_image` is what a pipeline's threads call, one image at a time while it is in their cache; it
holds no lock and allocates nothing. `render` does a list of images at once, for tests and for users
who have their own loader.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.kernels.views import layout
from patchmill.kernels.views.cpu.colour import blur, blur_bytes, colour
from patchmill.kernels.views.cpu.finish import finish, finish_bytes
from patchmill.kernels.views.cpu.paste import paste, paste_bytes
from patchmill.kernels.views.cpu.resize import UNIT, carve, pitch_of, resize, resize_bytes
from patchmill.kernels.views.decisions import Target
from patchmill.kernels.views.layout import elements, shaped

if TYPE_CHECKING:
    import torch

MOST_BLUR_TAPS = 31
NO_MASK, NO_IMAGE = np.empty((0, 0), np.uint8), np.empty((0, 0, 3), np.uint8)

Planes = Sequence[np.ndarray | None]  # one for each image, or none


def slots(targets: Sequence[Target], batch: int, as_bytes: bool) -> np.ndarray:
    """One SLOT per view, for the planes' fixed point."""
    return layout.slots(targets, batch, as_bytes, UNIT)


@jit
def pool_bytes(height, width, size):
    """Scratch that one thread needs for any view of `size` of an image of these sides."""
    scratch = resize_bytes(height, width, size)
    scratch = max(scratch, blur_bytes(size, MOST_BLUR_TAPS), finish_bytes(size))
    return scratch + 2 * 3 * size * pitch_of(size) + 4096


@jit
def pasted_bytes(height, width, mask_height, mask_width, ground_height, ground_width, size):
    """The same for `render_pasted`, with a mask and a companion of these sides, or of none."""
    pasting = paste_bytes(mask_height, mask_width, ground_height, ground_width, size)
    pasting += 2 * 3 * size * pitch_of(size) + 4096
    return max(pool_bytes(height, width, size), pasting)


@jit
def render_image(image, rows, slots, sample, half, channels_last, out, pool):
    """Make all views of `image` (uint8 HWC) that `rows` describe and write them into flat `out`."""
    for v in range(len(rows)):
        render_view(image, None, None, rows[v], slots[v], sample, half, channels_last, out, pool)


@jit
def render_pasted(image, mask, companion, rows, slots, sample, half, channels_last, out, pool):
    """As `render_image`, with copy-paste: by `mask` (uint8 HW), on `companion` (uint8 HWC).

    One that there is not is an array of no elements: views that would need it stay as they are.
    """
    for v in range(len(rows)):
        render_view(
            image, mask, companion, rows[v], slots[v], sample, half, channels_last, out, pool
        )


@jit
def render_view(image, mask, companion, row, slot, sample, half, channels_last, out, pool):
    size = slot.size
    turns, flip = row.turns & 3, row.flip != 0
    # A mirrored table costs nothing and planes lie on their side anyway: together all 8 poses.
    reverse_x = flip != (turns == 1 or turns == 2)
    reverse_y = turns >= 2
    raw, rest = carve(pool, 2 * 3 * size * pitch_of(size))
    planes = raw.view(np.int16)
    resize(image, row, size, slot.bicubic != 0, reverse_x, reverse_y, planes, rest)
    if mask is not None:  # else this is not compiled at all
        height, width = image.shape[0], image.shape[1]
        paste(height, width, mask, companion, row, size, reverse_x, reverse_y, planes, rest)
    colour(row, size, planes)
    if row.sigma > 0:
        blur(row, size, planes, rest)
    at = slot.first + sample * slot.step
    finish(
        planes, size, turns & 1 == 0, row.solarise != 0, slot.scale, slot.shift,
        half, channels_last, out, at, rest,
    )  # fmt: skip


class Scratch:
    """One thread's scratch memory, grown to the largest image seen."""

    def __init__(self) -> None:
        self.pool = np.empty(0, np.uint8)

    def fitting(
        self,
        height: int,
        width: int,
        size: int,
        mask: tuple[int, ...] = (0, 0),
        companion: tuple[int, ...] = (0, 0),
    ) -> np.ndarray:
        """For an image and views of these sides; the last two are shapes."""
        if mask[0]:
            need = pasted_bytes(height, width, *mask[:2], *companion[:2], size) + 64
        else:
            need = pool_bytes(height, width, size) + 64
        if need > len(self.pool):
            pool = np.empty(need * 5 // 4, np.uint8)
            self.pool = pool[-pool.ctypes.data % 64 :]
        return self.pool


def render(
    images: Sequence[np.ndarray],
    rows: np.ndarray,
    targets: Sequence[Target],
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    masks: Planes | None = None,
    companions: Planes | None = None,
) -> dict[str, torch.Tensor]:
    """As `reference.render`: uint8 HWC images and rows [N, V] to [N, count, 3, size, size]."""
    import torch

    wanted = np.repeat([t.size for t in targets], [t.count for t in targets])
    if (np.minimum(rows["full_h"], rows["full_w"]) < wanted).any():
        raise ValueError("a view cannot be larger than the resized box that it is a window of")
    dtype = dtype or torch.float32
    flat = torch.empty(elements(targets, len(images)), dtype=dtype)
    memory, half = numbers(flat)
    table = slots(targets, len(images), dtype == torch.uint8)
    largest, scratch = max(target.size for target in targets), Scratch()
    for sample, image in enumerate(images):
        image, mask = np.ascontiguousarray(image), masks[sample] if masks else None
        if mask is None:
            pool = scratch.fitting(image.shape[0], image.shape[1], largest)
            render_image(image, rows[sample], table, sample, half, channels_last, memory, pool)
            continue
        companion = companions[sample] if companions else None
        mask = np.ascontiguousarray(mask)
        companion = NO_IMAGE if companion is None else np.ascontiguousarray(companion)
        height, width = image.shape[:2]
        pool = scratch.fitting(height, width, largest, mask.shape, companion.shape)
        render_pasted(
            image, mask, companion, rows[sample], table, sample, half, channels_last, memory, pool
        )
    return shaped(flat, targets, len(images), channels_last)


def numbers(flat: torch.Tensor) -> tuple[np.ndarray, bool]:
    """The memory of a flat tensor as the kernel takes it, and whether 16-bit means IEEE half."""
    import torch

    if flat.dtype in (torch.bfloat16, torch.float16):
        return flat.view(torch.uint16).numpy(), flat.dtype == torch.float16
    return flat.numpy(), False
