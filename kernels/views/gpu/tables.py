"""Host-side tables of a batch: built from its rows in NumPy, uploaded in one copy.

Views are sorted into passes here, on the host, where the rows are: a pass launches blocks only for
views that need it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import NO_JITTER, PASTE_NEVER, ROW, Target
from patchmill.kernels.views.gpu import row_loops

PIXELS = 2048  # of a view, per block of the contrast pass
TILES = (16, 32)  # tile sides: the smallest that holds a view, else the largest
FILTER_STEP, FILTER_UNIT = 32, 8  # source pixels; float16 numbers, in which records are measured
_ALIGNMENT = 16  # bytes, of each table in the upload


@dataclass(frozen=True)
class ImagePointers:
    """uint8 images anywhere in device memory; rows of pixels may be padded."""

    pointers: np.ndarray  # [N] int64 addresses; 0 for none
    shapes: np.ndarray  # [N, 2]: height, width
    pitches: np.ndarray  # [N]: bytes from one row of pixels to the next


@dataclass(frozen=True)
class Images(ImagePointers):
    """uint8 HWC images and, for copy-paste, their masks and backgrounds: N each, or None.

    Pixels are read in aligned 32-bit words: up to three bytes before and after a buffer are read.
    """

    masks: ImagePointers | None = None  # uint8 HW, of any size, stretched over their images
    backgrounds: ImagePointers | None = None  # uint8 HWC, of any size

    @staticmethod
    def of(
        images: Sequence[torch.Tensor],
        masks: OptionalTensors | None = None,
        backgrounds: OptionalTensors | None = None,
    ) -> Images:
        pixels = _pointers(images, "images", 3)
        return Images(
            pixels.pointers,
            pixels.shapes,
            pixels.pitches,
            _pointers(masks, "masks", 1) if masks else None,
            _pointers(backgrounds, "backgrounds", 3) if backgrounds else None,
        )


OptionalTensors = Sequence[torch.Tensor | None]  # one per image, or None


def _pointers(tensors: OptionalTensors, name: str, channels: int) -> ImagePointers:
    shape, strides = ("height, width, 3", (3, 1)) if channels == 3 else ("height, width", (1,))
    present = [tensor for tensor in tensors if tensor is not None]
    for tensor in present:
        if tensor.dtype != torch.uint8 or tensor.shape[2:] != (3,)[: channels // 3]:
            raise ValueError(
                f"{name} must be uint8 tensors [{shape}], not {tensor.dtype} {tuple(tensor.shape)}"
            )
        if tensor.stride()[1:] != strides:
            raise ValueError(f"the pixels of a row of {name} must lie side by side in memory")
    table = ImagePointers(*(np.zeros((len(tensors), *rest), np.int64) for rest in ((), (2,), ())))
    is_present = [tensor is not None for tensor in tensors]
    table.pointers[is_present] = [tensor.data_ptr() for tensor in present]
    table.pitches[is_present] = [tensor.stride(0) for tensor in present]
    table.shapes[is_present] = np.array([tensor.shape[:2] for tensor in present]).reshape(-1, 2)
    return table


@dataclass(frozen=True)
class Pass:
    """Block schedule of one pass, as `fields.locate_block` reads it."""

    groups: np.ndarray  # [chunks, groups, 3] int32: first block, blocks per view, first entry
    entries: np.ndarray  # int32: the row of each entry, image * views + view
    blocks: list[int]  # of each chunk


@dataclass(frozen=True)
class Variant:
    """All groups that share one compiled variant of the kernels, and their passes."""

    tile: int
    bicubic: bool
    aligned: bool  # rows of pixels start at multiples of 16 elements
    max_tiles: int  # per view
    weigh: Pass  # for one image instead of chunks; entries are views
    resize: Pass  # likewise
    contrast: Pass
    blur: Pass
    backgrounds: int = 0  # bit set of the kinds of background that its views use

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Tables to upload; schedules are named like their kernels."""
        return {
            "weigh": self.weigh.groups,
            "resize": self.resize.groups,
            "contrast": self.contrast.groups,
            "contrast_entries": self.contrast.entries,
            "blur": self.blur.groups,
            "blur_entries": self.blur.entries,
        }


def variants(
    rows: np.ndarray, targets: Sequence[Target], masked: bool, chunk: int
) -> list[Variant]:
    """Group the targets by compiled variant and schedule their passes for `rows` [N, V].

    The passes after `resize` are scheduled for chunks of that many images.
    """
    starts = np.cumsum([0, *(target.count for target in targets)])
    has_contrast = (rows["order"] != NO_JITTER) & (rows["contrast"] != 1)
    has_blur, paste = rows["sigma"] > 0, rows["paste"]
    columns = [slice(*ends) for ends in itertools.pairwise(starts)]
    bounds = np.arange(chunk, len(rows), chunk) * rows.shape[1]
    by_variant: dict[tuple[int, bool], list[int]] = {}
    for i, target in enumerate(targets):
        by_variant.setdefault((tile_of(target.size), target.bicubic), []).append(i)
    result = []
    for (tile, bicubic), members in by_variant.items():
        counts, sizes = [targets[i].count for i in members], [targets[i].size for i in members]
        sides = [_ceil_div(size, tile) for size in sizes]
        tiles = [side**2 for side in sides]
        contrast_entries, blur_entries = [], []
        for i, count in zip(members, tiles, strict=True):
            ends = starts[i : i + 2]
            contrast_entries.append(_entries(has_contrast, *ends) if count > 1 else _NONE)
            blur_entries.append(_entries(has_blur, *ends))
        every = [np.zeros(count) for count in counts]
        weigh = _pass(every, [2 * side for side in sides], _NONE)
        resize = _pass(every, tiles, _NONE)
        weigh.groups[..., 2] = resize.groups[..., 2] = starts[members]
        blocks = [_ceil_div(size**2, PIXELS) for size in sizes]
        contrast = _pass(contrast_entries, blocks, bounds)
        aligned = all(size % 16 == 0 for size in sizes)
        blur = _pass(blur_entries, tiles, bounds)
        backgrounds = 0
        if masked:
            kinds = {int(kind) for i in members for kind in np.unique(paste[:, columns[i]])}
            backgrounds = sum(1 << kind for kind in kinds - {PASTE_NEVER})
        result.append(
            Variant(tile, bicubic, aligned, max(tiles), weigh, resize, contrast, blur, backgrounds)
        )
    return result


_NONE = np.zeros(0, np.int32)


def tile_of(size: int) -> int:
    return next((tile for tile in TILES if size <= tile), TILES[-1])


def _entries(needed: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Row indices where `needed` [N, V] holds, of the views `first` to `stop` - 1, by image."""
    image, view = np.nonzero(needed[:, first:stop])
    return (image * needed.shape[1] + view + first).astype(np.int32)


def _pass(entries: list[np.ndarray], blocks_per_entry: list[int], bounds: np.ndarray) -> Pass:
    """The schedule of one list of entries per group, in chunks that end at these `bounds`."""
    ends = [[0, *np.searchsorted(group, bounds), len(group)] for group in entries]
    counts = np.diff(ends).T  # [chunks, groups]
    starts = np.cumsum([0, *(len(group) for group in entries)])[:-1]
    stops = (counts * blocks_per_entry).cumsum(1)
    groups = np.empty((*counts.shape, 3), np.int32)
    groups[..., 0], groups[..., 1] = stops - counts * blocks_per_entry, blocks_per_entry
    groups[..., 2] = starts + np.array(ends).T[:-1]
    return Pass(groups, np.concatenate(entries).astype(np.int32), stops[:, -1].tolist())


def _ceil_div(value: Any, unit: Any) -> Any:
    return -(-value // unit)


def image_table(images: Images) -> np.ndarray:
    """[N, 2] int64: address, row pitch in bytes."""
    return np.stack([images.pointers, images.pitches], 1).astype(np.int64)


def paste_table(images: Images) -> np.ndarray:
    """[N, 13] int64, fields as in `gpu.paste`; empty where no image has a mask."""
    count = len(images.pointers)
    if images.masks is None:
        return np.zeros((0, 13), np.int64)
    no_images = ImagePointers(np.zeros(count), np.zeros((count, 2)), np.zeros(count))
    sides, table = images.shapes, np.zeros((count, 13), np.int64)
    doubles = table.view(np.float64)
    mask, background = images.masks, images.backgrounds or no_images
    for first, source in ((0, mask), (6, background)):
        table[:, first], table[:, first + 1] = source.pointers, source.pitches
        table[:, first + 2 : first + 4] = source.shapes
    doubles[:, 4:6] = mask.shapes / sides
    zoom = np.maximum((sides / np.maximum(background.shapes, 1)).max(1), 1)
    doubles[:, 10] = 1 / zoom
    doubles[:, 11:13] = zoom[:, None] * background.shapes - sides
    return table


def filter_table(rows: np.ndarray, targets: Sequence[Target]) -> tuple[np.ndarray, int]:
    """[N, V, 4] int32, fields as in `gpu.filters`, and the float16 numbers of all records."""
    table = np.empty((*rows.shape, 4), np.int32)
    units = row_loops.lay_out_filters(
        np.ascontiguousarray(rows), *_sides(tuple(targets)), FILTER_STEP, FILTER_UNIT, table
    )
    return table, FILTER_UNIT * units


@functools.lru_cache(maxsize=64)
def _sides(targets: tuple[Target, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of a tile's side, tiles of its side, and the reach of its filter, of each view."""
    counts = [target.count for target in targets]
    sizes = np.repeat([target.size for target in targets], counts)
    tiles = np.repeat([tile_of(target.size) for target in targets], counts)
    reach = np.repeat([4 if target.bicubic else 2 for target in targets], counts)
    return tiles, _ceil_div(sizes, tiles), reach


def slot_table(targets: Sequence[Target], batch: int, chunk: int, as_bytes: bool) -> np.ndarray:
    """SLOTs as int64 words, and each view's offset in the planes of a chunk of images."""
    return _slot_table(tuple(targets), batch, chunk, as_bytes)


@functools.lru_cache(maxsize=64)
def _slot_table(targets: tuple[Target, ...], batch: int, chunk: int, as_bytes: bool) -> np.ndarray:
    slots = layout.slots(targets, batch, as_bytes)
    in_planes = layout.slots(targets, chunk, as_bytes)["offset"]
    return np.column_stack([slots.view(np.int64).reshape(len(slots), -1), in_planes])


def check(images: Images, rows: np.ndarray, targets: Sequence[Target]) -> None:
    """Validate shapes and boxes: a box outside of its image would read foreign memory."""
    count = sum(target.count for target in targets)
    if rows.dtype != ROW or rows.shape != (len(images.pointers), count):
        raise ValueError(
            f"{len(images.pointers)} images and {count} views need decision rows [images, views], "
            f"not {rows.dtype.name} {rows.shape}"
        )
    for name, extra in (("masks", images.masks), ("backgrounds", images.backgrounds)):
        if extra is not None and len(extra.pointers) != len(images.pointers):
            raise ValueError(
                f"{len(images.pointers)} images need as many {name}, each of them one or None, "
                f"not {len(extra.pointers)}"
            )
    place = row_loops.first_outside(np.ascontiguousarray(rows), images.shapes)
    if place >= 0:
        (image, view), fields = divmod(place, count), ("box_y", "box_x", "box_h", "box_w")
        box, shape = [int(rows[field][image, view]) for field in fields], images.shapes[image]
        raise ValueError(
            f"view {view} of image {image} is cut from the box (y, x, height, width) {box}, "
            f"which is not inside of the image of {shape[0]} x {shape[1]} pixels"
        )


def upload(arrays: Sequence[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """Copy the arrays to the device, flat, in one asynchronous copy."""
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    sizes = [_ceil_div(array.nbytes, _ALIGNMENT) * _ALIGNMENT for array in flat]
    offsets = np.cumsum([0, *sizes])
    cuda = device.type == "cuda"
    host = torch.empty(int(offsets[-1]), dtype=torch.uint8, pin_memory=cuda)
    memory = host.numpy()
    for array, offset in zip(flat, offsets, strict=False):
        memory[offset : offset + array.nbytes] = array.view(np.uint8)
    uploaded = host.to(device, non_blocking=True)
    return [
        uploaded[offset : offset + array.nbytes].view(_TYPES[array.dtype.name])
        for array, offset in zip(flat, offsets, strict=False)
    ]


_TYPES = {"int32": torch.int32, "int64": torch.int64}
