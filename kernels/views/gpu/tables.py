"""Host-side tables of a batch: built from its rows in NumPy and `row_loops`, uploaded in one copy.

Views are sorted into passes on the host, where the rows are: a pass launches blocks only for views
that need it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import PASTE_NEVER, ROW, Target
from patchmill.kernels.views.gpu import row_loops

PIXELS = 2048  # of a view, per block of the contrast pass
TILES = (16, 32)  # tile sides: the smallest that holds a view, else the largest
FILTER_STEP, FILTER_UNIT = 32, 8  # source pixels; float16 elements, the unit of record sizes
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
            raise ValueError(f"the pixels of a row of {name} must be contiguous in memory")
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
    backgrounds: int = 0  # bit set of the background kinds that its views use

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

    The passes after `resize` are scheduled for chunks of `chunk` images.
    """
    rows, chunks = np.ascontiguousarray(rows), max(_ceil_div(len(rows), chunk), 1)
    result = []
    for variant, members in _without_rows(tuple(targets)):
        groups = np.empty((2, chunks, len(members), 3), np.int32)
        entries, blocks = np.empty((2, rows.size), np.int32), np.zeros((2, chunks), np.int64)
        *ends, kinds = row_loops.sort_rows(rows, chunk, members, entries, groups, blocks)
        contrast, blur = (
            Pass(groups[of], entries[of, :end], blocks[of].tolist()) for of, end in enumerate(ends)
        )
        backgrounds = kinds & ~(1 << PASTE_NEVER) if masked else 0
        result.append(replace(variant, contrast=contrast, blur=blur, backgrounds=backgrounds))
    return result


def needs_planes(rows: np.ndarray, targets: Sequence[Target]) -> bool:
    """True if a view has a pass after `resize`."""
    rows = np.ascontiguousarray(rows)
    return any(row_loops.any_planes(rows, members) for _, members in _without_rows(tuple(targets)))


@functools.lru_cache(maxsize=64)
def _without_rows(targets: tuple[Target, ...]) -> list[tuple[Variant, np.ndarray]]:
    """Variants whose passes after `resize` are empty, each with its MEMBERs."""
    starts = np.cumsum([0, *(target.count for target in targets)])
    by_variant: dict[tuple[int, bool], list[int]] = {}
    for i, target in enumerate(targets):
        by_variant.setdefault((tile_of(target.size), target.bicubic), []).append(i)
    result = []
    for (tile, bicubic), places in by_variant.items():
        sizes = np.array([targets[i].size for i in places])
        sides = _ceil_div(sizes, tile)
        members = np.zeros(len(places), row_loops.MEMBER)
        members["first"], members["stop"] = starts[places], starts[np.array(places) + 1]
        members["large"], members["tiles"] = sides > 1, sides**2
        members["contrast_blocks"] = _ceil_div(sizes**2, PIXELS)
        empty = Pass(np.zeros((1, len(places), 3), np.int32), np.zeros(0, np.int32), [0])
        variant = Variant(
            tile=tile,
            bicubic=bicubic,
            aligned=bool((sizes % 16 == 0).all()),
            max_tiles=int(sides.max() ** 2),
            weigh=_pass_of_all(members, 2 * sides),
            resize=_pass_of_all(members, sides**2),
            contrast=empty,
            blur=empty,
        )
        result.append((variant, members))
    return result


def _pass_of_all(members: np.ndarray, blocks_per_view: np.ndarray) -> Pass:
    """The schedule of one image's views, all of them."""
    stops = ((members["stop"] - members["first"]) * blocks_per_view).cumsum()
    begins = [0, *stops[:-1]]
    groups = np.stack([begins, blocks_per_view, members["first"]], 1).astype(np.int32)
    return Pass(groups[None], np.zeros(0, np.int32), [int(stops[-1])])


def tile_of(size: int) -> int:
    return next((tile for tile in TILES if size <= tile), TILES[-1])


def _ceil_div(value: Any, unit: Any) -> Any:
    return -(-value // unit)


def image_table(images: Images) -> np.ndarray:
    """[N, 2] int64: address, row pitch in bytes."""
    return np.stack([images.pointers, images.pitches], 1).astype(np.int64)


def paste_table(images: Images) -> np.ndarray:
    """[N, 13] int64, fields as in `gpu.paste`; empty if no image has a mask."""
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
    """[N, V, 4] int32, fields as in `gpu.filters`, and the float16 elements of all records."""
    table = np.empty((*rows.shape, 4), np.int32)
    units = row_loops.lay_out_filters(
        np.ascontiguousarray(rows), *_sides(tuple(targets)), FILTER_STEP, FILTER_UNIT, table
    )
    return table, FILTER_UNIT * units


@functools.lru_cache(maxsize=64)
def _sides(targets: tuple[Target, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per view: pixels per tile side, tiles per view side, and the reach of the filter."""
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
    """Validate shapes and boxes: a box outside its image would read other memory."""
    count = sum(target.count for target in targets)
    if rows.dtype != ROW or rows.shape != (len(images.pointers), count):
        raise ValueError(
            f"{len(images.pointers)} images and {count} views need decision rows [images, views], "
            f"not {rows.dtype.name} {rows.shape}"
        )
    for name, extra in (("masks", images.masks), ("backgrounds", images.backgrounds)):
        if extra is not None and len(extra.pointers) != len(images.pointers):
            raise ValueError(
                f"{len(images.pointers)} images need as many {name}, each an array or None, "
                f"not {len(extra.pointers)}"
            )
    place = row_loops.first_outside(np.ascontiguousarray(rows), images.shapes)
    if place >= 0:
        (image, view), fields = divmod(place, count), ("box_y", "box_x", "box_h", "box_w")
        box, shape = [int(rows[field][image, view]) for field in fields], images.shapes[image]
        raise ValueError(
            f"view {view} of image {image} is cut from the box (y, x, height, width) {box}, "
            f"which is not inside the image of {shape[0]} x {shape[1]} pixels"
        )


def upload(arrays: Sequence[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """Copy arrays of int32 or int64 to the device, flat, in one asynchronous copy."""
    flat = [array.reshape(-1) for array in arrays]
    offsets = [0]
    for array in flat:
        offsets.append(offsets[-1] + _ceil_div(array.nbytes, _ALIGNMENT) * _ALIGNMENT)
    host = torch.empty(offsets[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    memory = host.numpy()
    for array, offset in zip(flat, offsets, strict=False):
        memory[offset : offset + array.nbytes] = array.view(np.uint8)
    uploaded = host.to(device, non_blocking=True)
    typed = {size: uploaded.view(of) for size, of in ((4, torch.int32), (8, torch.int64))}
    tensors = []
    for array, offset in zip(flat, offsets, strict=False):
        begin = offset // array.itemsize
        tensors.append(typed[array.itemsize][begin : begin + array.size])
    return tensors
