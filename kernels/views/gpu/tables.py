"""What the GPU has to know about a batch: made of the plan's rows by NumPy, uploaded in one piece.

Views are sorted into passes here, on the host, where the rows come from: a pass starts blocks only
for views that need it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import NO_JITTER, PASTE_NEVER, ROW, Target

PIXELS = 1024  # of a view, in a block of the contrast pass
TILES = (16, 32)  # sides; the smallest that holds a view, else the largest
_ALIGNMENT = 16


@dataclass(frozen=True)
class Pictures:
    """uint8 pictures on a device, wherever they lie; rows of pixels may be further apart."""

    pointers: np.ndarray  # [N] int64; 0 where there is none
    shapes: np.ndarray  # [N, 2]: height, width
    pitches: np.ndarray  # [N]: bytes from one row of pixels to the next


@dataclass(frozen=True)
class Images(Pictures):
    """uint8 HWC images, and what copy-paste needs of each: all of N, or None.

    Memory is read in aligned words: up to three bytes before and behind one, of its own words.
    """

    masks: Pictures | None = None  # uint8 HW, of any size: they cover their images
    companions: Pictures | None = None  # uint8 HWC, to be backgrounds

    @staticmethod
    def of(
        images: Sequence[torch.Tensor],
        masks: Tensors | None = None,
        companions: Tensors | None = None,
    ) -> Images:
        known = _pictures(images, "images", 3)
        return Images(
            known.pointers,
            known.shapes,
            known.pitches,
            _pictures(masks, "masks", 1) if masks else None,
            _pictures(companions, "companions", 3) if companions else None,
        )


Tensors = Sequence[torch.Tensor | None]  # one for each image, or none


def _pictures(pictures: Tensors, name: str, channels: int) -> Pictures:
    sides, apart = ("height, width, 3", (3, 1)) if channels == 3 else ("height, width", (1,))
    known = [picture for picture in pictures if picture is not None]
    for picture in known:
        if picture.dtype != torch.uint8 or picture.shape[2:] != (3,)[: channels // 3]:
            raise ValueError(
                f"{name} must be uint8 tensors [{sides}], "
                f"not {picture.dtype} {tuple(picture.shape)}"
            )
        if picture.stride()[1:] != apart:
            raise ValueError(f"the pixels of a row of {name} must lie side by side in memory")
    found = Pictures(*(np.zeros((len(pictures), *shape), np.int64) for shape in ((), (2,), ())))
    there = [picture is not None for picture in pictures]
    found.pointers[there] = [picture.data_ptr() for picture in known]
    found.pitches[there] = [picture.stride(0) for picture in known]
    found.shapes[there] = np.array([picture.shape[:2] for picture in known]).reshape(-1, 2)
    return found


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
    pastes: int = 0  # a bit for each background that its views need

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


def kinds(rows: np.ndarray, targets: Sequence[Target], masked: bool = False) -> list[Kind]:
    """The work that `rows` [N, V] ask for, if images have masks or if they do not."""
    starts = np.cumsum([0, *(target.count for target in targets)])
    jittered = (rows["order"] != NO_JITTER) & (rows["contrast"] != 1)
    blurred, paste = rows["sigma"] > 0, rows["paste"]
    spans = [slice(*ends) for ends in itertools.pairwise(starts)]
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
        pastes = 0
        if masked:
            grounds = {int(kind) for i in own for kind in np.unique(paste[:, spans[i]])}
            pastes = sum(1 << kind for kind in grounds - {PASTE_NEVER})
        found.append(Kind(tile, bicubic, even, max(tiles), resize, contrast, blur, pastes))
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


def paste_table(images: Images) -> np.ndarray:
    """[N, 13] int64, as `gpu_paste` reads it; of no images where none has a mask."""
    count = len(images.pointers)
    if images.masks is None:
        return np.zeros((0, 13), np.int64)
    none = Pictures(np.zeros(count), np.zeros((count, 2)), np.zeros(count))
    sides, found = images.shapes, np.zeros((count, 13), np.int64)
    doubles = found.view(np.float64)
    mask, ground = images.masks, images.companions or none
    for first, picture in ((0, mask), (6, ground)):
        found[:, first], found[:, first + 1] = picture.pointers, picture.pitches
        found[:, first + 2 : first + 4] = picture.shapes
    doubles[:, 4:6] = mask.shapes / sides
    zoom = np.maximum((sides / np.maximum(ground.shapes, 1)).max(1), 1)
    doubles[:, 10] = 1 / zoom
    doubles[:, 11:13] = zoom[:, None] * ground.shapes - sides
    return found


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
    for name, pictures in (("masks", images.masks), ("companions", images.companions)):
        if pictures is not None and len(pictures.pointers) != len(images.pointers):
            raise ValueError(
                f"{len(images.pointers)} images need as many {name}, each of them one or None, "
                f"not {len(pictures.pointers)}"
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
