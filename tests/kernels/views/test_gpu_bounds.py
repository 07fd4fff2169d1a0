"""Bounds of what the GPU renderer reads and writes, swept over boxes, windows and sizes.

`footprint` says which source pixels a tile reads. The sweep runs its own code on arrays of cases in
NumPy: so do the host's tables, which say how much room a tile has for what it writes.
"""

from __future__ import annotations

import itertools
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

from helpers_views import make_row, target

from patchmill.kernels.views import layout
from patchmill.kernels.views.gpu import filters, footprint, paste, tables

CASES = 30_000
SIDES = np.array([1, 2, 3, 5, 17, 31, 32, 33, 64, 333, 1000, 4096, 8191, 8192])
SIZES = np.array([1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 96, 98, 224, 225, 512])


class Numbers(np.ndarray):
    """An array with the methods of Triton's tensors that the kernels' arithmetic uses."""

    def to(self, kind: Any) -> Numbers:
        return self.astype(kind)  # type: ignore[return-value]


def numbers(values: Any) -> Numbers:
    """A column: one row for each case."""
    return np.asarray(values).reshape(-1, 1).view(Numbers)


LANGUAGE = SimpleNamespace(
    arange=lambda first, stop: np.arange(first, stop, dtype=np.int32).view(Numbers),
    where=lambda *its: np.where(*its).view(Numbers),
    minimum=np.minimum, maximum=np.maximum, sqrt=np.sqrt,
    int32=np.int32, float32=np.float32, float64=np.float64,
)  # fmt: skip


def in_numpy(kernel: Any, **functions: Any) -> Any:
    """A Triton function, run on arrays; `functions` take the place of those that it calls."""
    return FunctionType(kernel.fn.__code__, {"tl": LANGUAGE, **functions})


place = in_numpy(footprint.footprint)
place_in_mask = in_numpy(paste._mask_footprint, footprint=place)


def cases(seed: int, tile: int) -> dict[str, Numbers]:
    """One axis of a tile of a view, one case a row."""
    rng = np.random.default_rng(seed)
    size = rng.choice(SIZES[SIZES <= 16] if tile == 16 else SIZES[SIZES > 16], CASES)
    side = np.where(rng.random(CASES) < 0.5, rng.choice(SIDES, CASES), rng.integers(1, 9000, CASES))
    box = np.select(
        [rng.random(CASES) < 0.3, rng.random(CASES) < 0.3], [side, 1], rng.integers(1, side + 1)
    )
    corner = np.where(rng.random(CASES) < 0.5, side - box, rng.integers(0, side - box + 1))
    full = np.select(
        [rng.random(CASES) < 0.4, rng.random(CASES) < 0.3],
        [size, rng.integers(1, 4 * size + 1)],
        rng.integers(1, 30_000, CASES),
    )
    window = np.where(
        rng.random(CASES) < 0.3, 0, rng.integers(-2 * size - 1, full + size + 2)
    )  # inside, across the border, beyond it
    first = tile * rng.integers(0, -(-size // tile))
    fields = dict(side=side, box=box, corner=corner, full=full, window=window, size=size)
    fields |= dict(first=first, reverse=rng.random(CASES) < 0.5)
    return {name: numbers(values) for name, values in fields.items()}


def tile_of(it: dict[str, Numbers]) -> tuple[Numbers, ...]:
    return it["full"], it["window"], it["first"], it["size"], it["reverse"]


def worst(it: dict[str, Numbers], wrong: Any) -> str:
    """The first case that is wrong."""
    row = int(np.flatnonzero(wrong)[0])
    return str({name: values[row].item() for name, values in it.items()})


@pytest.mark.parametrize(("tile", "bicubic"), list(itertools.product(tables.TILES, (False, True))))
def test_a_tile_reads_its_box_and_has_room_for_its_weights(tile: int, bicubic: bool):
    it = cases(tile + bicubic, tile)
    scale = it["box"].to(float) / it["full"].to(float)
    unit = np.maximum(scale, 1.0)
    reach = (2.0 if bicubic else 1.0) * unit
    with np.errstate(over="ignore"):
        start, length, *_ = place(it["box"], 0.0, scale, unit, reach, *tile_of(it), tile)
    wrong = (start < 0) | (length < 1) | (start + length > it["box"])
    assert not wrong.any(), worst(it, wrong)

    rows = np.zeros((CASES, 1), tables.ROW)
    for name in ("box", "full"):
        rows[f"{name}_h"] = rows[f"{name}_w"] = it[name]
    room = np.concatenate(
        [
            tables.filter_table(rows[(it["size"] == size)[:, 0]], [target(size, bicubic)])[0]
            for size in np.unique(it["size"])
        ]
    )[:, 0, 1]
    by_size = np.concatenate([length[it["size"] == size] for size in np.unique(it["size"])])
    steps = -(-by_size // filters.STEP.value)
    needed = filters.HEADER.value + 2 * tile + tile * filters.STEP.value * steps
    assert (needed <= filters.UNIT.value * room).all()


@pytest.mark.parametrize("sigma", [0.0, 0.125, 5.0, 50.0, 1000.0])
def test_a_tile_reads_within_its_mask(sigma: float):
    it = cases(int(sigma), 32)
    length = numbers(np.random.default_rng(1).choice(SIDES, CASES))
    ratio, step = length / it["side"], it["box"].to(float) / it["full"].to(float)
    blur = np.float64(sigma)
    start, count, *_ = place_in_mask(
        length, ratio.view(Numbers), blur, it["corner"], step, *tile_of(it), 32
    )
    wrong = (start < 0) | (count < 1) | (start + count > length)
    assert not wrong.any(), worst(it | {"length": length}, wrong)


def test_a_tile_reads_within_its_background():
    """Enlarged to cover its image, it lies by a fraction of the room that is left."""
    it, rng = cases(3, 32), np.random.default_rng(2)
    length, fraction = numbers(rng.choice(SIDES, CASES)), numbers(rng.uniform(0, 0.5, CASES))
    fraction = fraction.to(np.float32).to(np.float64)
    for other in (1.0, 3.7):  # the other axis may ask for a larger zoom
        zoom = np.maximum(it["side"] / length, 1) * other
        shrink = (1 / zoom).view(Numbers)
        scale = (it["box"].to(float) / it["full"].to(float)) * shrink
        origin = (it["corner"] + fraction * (zoom * length - it["side"])) * shrink
        unit = np.maximum(scale, 1.0)
        start, count, *_ = place(length, origin, scale, unit, unit, *tile_of(it), 32)
        wrong = (start < 0) | (count < 1) | (start + count > length)
        assert not wrong.any(), worst(it | {"length": length}, wrong)


@pytest.mark.parametrize("batch", [1, 3])
def test_every_tile_of_every_view_is_written_once_and_within_the_batch(batch: int):
    """Groups of both tiles' sizes and both filters, as `fields.locate_block` reads them."""
    targets = [
        target(size, bicubic, count, str(number))
        for number, (size, bicubic, count) in enumerate(
            [(224, True, 2), (7, False, 3), (33, True, 1), (16, False, 2), (96, False, 4)]
        )
    ]
    views = sum(it.count for it in targets)
    image = np.zeros((8192, 1, 3), np.uint8)
    rows = np.array([[make_row(image, 224, contrast=0.5, order=0, sigma=1)] * views] * batch)
    slots = layout.slots(targets, batch, False)
    written = np.zeros(layout.elements(targets, batch), np.int8)
    for variant in tables.variants(rows, targets, False, batch):
        (blocks,), (groups,) = variant.resize.blocks, variant.resize.groups
        for sample, block in itertools.product(range(batch), range(blocks)):
            view, tile = locate(groups, block)
            offset, stride, size = (int(slots[name][view]) for name in ("offset", "stride", "size"))
            begin = offset + stride * sample
            plane = written[begin : begin + 3 * size**2].reshape(3, size, size)
            across = -(-size // variant.tile)
            y, x = (variant.tile * it for it in divmod(tile, across))
            plane[:, y : y + variant.tile, x : x + variant.tile] += 1
    assert (written == 1).all()


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_chunks_hold_each_blurred_view_once_and_their_planes_lie_apart(chunk: int):
    targets = [target(64, True, 2, "a"), target(33, True, 1, "b"), target(8, False, 3, "c")]
    sizes = np.repeat([it.size for it in targets], [it.count for it in targets])
    image, rng = np.zeros((64, 64, 3), np.uint8), np.random.default_rng(chunk)
    rows = np.array([[make_row(image, 64)] * len(sizes)] * 5)
    rows["sigma"] = rng.random(rows.shape) < 0.6
    slots = tables.slot_table(targets, 5, chunk, False)
    found = []
    for variant in tables.variants(rows, targets, False, chunk):
        assert len(variant.blur.blocks) == -(-5 // chunk)
        for number, blocks in enumerate(variant.blur.blocks):
            for block in range(blocks):
                entry, tile = locate(variant.blur.groups[number], block)
                sample, view = divmod(int(variant.blur.entries[entry]), len(sizes))
                found.append((sample, view, tile))
                assert sample // chunk == number
    expected = [
        (sample, view, tile)
        for sample, view in np.argwhere(rows["sigma"] > 0).tolist()
        for tile in range((-(-int(sizes[view]) // tables.tile_of(sizes[view]))) ** 2)
    ]
    assert sorted(found) == sorted(expected)
    # Planes of a chunk fill its memory without overlap.
    begin = (slots[:, -1, None] + slots[:, 1, None] * np.arange(chunk)).ravel()
    end = begin + np.repeat(3 * sizes**2, chunk)
    order = begin.argsort()
    assert begin.min() == 0 and end.max() == layout.elements(targets, chunk)
    assert (end[order][:-1] == begin[order][1:]).all()


def locate(groups: np.ndarray, block: int) -> tuple[int, int]:
    """`fields.locate_block`: the entry of a block, and its number within it."""
    first, blocks, entry = groups[np.flatnonzero(groups[:, 0] <= block)[-1]].tolist()
    return entry + (block - first) // blocks, (block - first) % blocks
