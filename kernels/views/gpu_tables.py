"""What the GPU has to know about a batch: made of the plan's rows by NumPy, uploaded in one piece.

Views are sorted into passes here, on the host, where the rows come from: a pass starts blocks only
for views that need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.kernels.views.rows import NO_JITTER, ROW, Target

PIXELS = 1024  # of a view, in a block of the contrast pass
TILES = (16, 32)  # sides; the smallest that holds a view, else the largest
_ALIGNMENT = 16


@dataclass(frozen=True)
class Images:
    """uint8 HWC images on a device, wherever they lie; rows of pixels may be further apart.

    Memory is read in aligned words: up to three bytes before and behind an image, of its own words.
    """

    pointers: np.ndarray  # [N] int64
    shapes: np.ndarray  # [N, 2]: height, width
    pitches: np.ndarray  # [N]: bytes from one row of pixels to the next

    @staticmethod
    def of(images: Sequence[torch.Tensor]) -> Images:
        for image in images:
            if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(
                    "images must be uint8 tensors [height, width, 3], "
                    f"not {image.dtype} {tuple(image.shape)}"
                )
            if image.stride()[1:] != (3, 1):
                raise ValueError("the pixels of an image's row must lie side by side in memory")
        return Images(
            np.array([image.data_ptr() for image in images], np.int64),
            np.array([image.shape[:2] for image in images], np.int64).reshape(-1, 2),
            np.array([image.stride(0) for image in images], np.int64),
        )


@dataclass(frozen=True)
class Work:
    """The blocks of one pass, as `gpu_rows.piece` finds them."""

    groups: np.ndarray  # [groups, 3] int32: first block, blocks a view, first entry
    listed: np.ndarray  # int32: the row of each entry, image * views + view
    blocks: int


@dataclass(frozen=True)
class Kind:
    """All groups that the same machine code can make, and their work."""

    tile: int
    bicubic: bool
    even: bool  # rows of pixels begin at multiples of 16 numbers
    most_tiles: int  # of a view
    resize: Work  # of one image; entries are views
    contrast: Work
    blur: Work

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What kernels read, to be uploaded."""
        return {
            "resize": self.resize.groups,
            "contrast": self.contrast.groups,
            "contrasted": self.contrast.listed,
            "blur": self.blur.groups,
            "blurred": self.blur.listed,
        }


def kinds(rows: np.ndarray, targets: Sequence[Target]) -> list[Kind]:
    """The work that `rows` [N, V] ask for."""
    starts = np.cumsum([0, *(target.count for target in targets)])
    jittered = (rows["order"] != NO_JITTER) & (rows["contrast"] != 1)
    blurred = rows["sigma"] > 0
    alike: dict[tuple[int, bool], list[int]] = {}
    for i, target in enumerate(targets):
        alike.setdefault((tile_of(target.size), target.bicubic), []).append(i)
    found = []
    for (tile, bicubic), own in alike.items():
        counts, sizes = [targets[i].count for i in own], [targets[i].size for i in own]
        tiles = [_ceil(size, tile) ** 2 for size in sizes]
        waiting, soft = [], []
        for i, count in zip(own, tiles, strict=True):
            waiting.append(_entries(jittered, *starts[i : i + 2]) if count > 1 else _NONE)
            soft.append(_entries(blurred, *starts[i : i + 2]))
        resize = _work([np.zeros(count) for count in counts], tiles)
        resize.groups[:, 2] = starts[own]
        contrast = _work(waiting, [_ceil(size**2, PIXELS) for size in sizes])
        even = all(size % 16 == 0 for size in sizes)
        blur = _work(soft, tiles)
        found.append(Kind(tile, bicubic, even, max(tiles), resize, contrast, blur))
    return found


_NONE = np.zeros(0, np.int32)


def tile_of(size: int) -> int:
    return next((tile for tile in TILES if size <= tile), TILES[-1])


def _entries(needed: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Those rows of the views `first` to `stop` that are needed, image by image."""
    image, view = np.nonzero(needed[:, first:stop])
    return (image * needed.shape[1] + view + first).astype(np.int32)


def _work(entries: list[np.ndarray], blocks_a_view: list[int]) -> Work:
    counts = np.array([len(own) for own in entries])
    blocks = np.cumsum([0, *(counts * blocks_a_view)])
    first = np.cumsum([0, *counts])
    groups = np.stack([blocks[:-1], np.array(blocks_a_view), first[:-1]], 1)
    return Work(groups.astype(np.int32), np.concatenate(entries).astype(np.int32), int(blocks[-1]))


def _ceil(value: int, unit: int) -> int:
    return -(-value // unit)


def image_table(images: Images) -> np.ndarray:
    """[N, 2] int64: address and bytes a row."""
    return np.stack([images.pointers, images.pitches], 1).astype(np.int64)


def slot_table(targets: Sequence[Target], batch: int, as_bytes: bool) -> np.ndarray:
    """SLOTs as int64 words."""
    return layout.slots(targets, batch, as_bytes).view(np.int64)


def check(images: Images, rows: np.ndarray, targets: Sequence[Target]) -> None:
    """A box outside of its image would read memory that is not ours."""
    count = sum(target.count for target in targets)
    if rows.dtype != ROW or rows.shape != (len(images.pointers), count):
        raise ValueError(
            f"{len(images.pointers)} images and {count} views need as many rows, "
            f"not {rows.dtype.name} {rows.shape}"
        )
    height, width = images.shapes[:, 0, None], images.shapes[:, 1, None]
    y, x, h, w = (rows[name] for name in ("box_y", "box_x", "box_h", "box_w"))
    inside = (y >= 0) & (x >= 0) & (h > 0) & (w > 0) & (y + h <= height) & (x + w <= width)
    if not inside.all():
        image, view = np.argwhere(~inside)[0]
        box, shape = [int(side[image, view]) for side in (y, x, h, w)], images.shapes[image]
        raise ValueError(
            f"view {view} of image {image} is cut from the box (y, x, height, width) {box}, "
            f"which is not inside of the image of {shape[0]} x {shape[1]} pixels"
        )


def upload(arrays: Sequence[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """The arrays on the device, flat, in one copy that nobody waits for."""
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    room = [_ceil(array.nbytes, _ALIGNMENT) * _ALIGNMENT for array in flat]
    places = np.cumsum([0, *room])
    cuda = device.type == "cuda"
    host = torch.empty(int(places[-1]), dtype=torch.uint8, pin_memory=cuda)
    memory = host.numpy()
    for array, place in zip(flat, places, strict=False):
        memory[place : place + array.nbytes] = array.view(np.uint8)
    there = host.to(device, non_blocking=True)
    return [
        there[place : place + array.nbytes].view(_TYPES[array.dtype.name])
        for array, place in zip(flat, places, strict=False)
    ]


_TYPES = {"int32": torch.int32, "int64": torch.int64}
