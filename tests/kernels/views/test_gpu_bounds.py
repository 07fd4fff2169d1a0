"""Bounds of the GPU renderer's reads and writes, swept over boxes, windows and sizes.

`footprint` computes the source pixels that a tile reads. The sweep runs its code on arrays of cases
in NumPy, like the host's tables, which compute how much memory a tile has for its output.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from helpers_views import make_row, seeds, target

from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import NO_JITTER, ON_GREY, ON_IMAGE, PASTE_NEVER, Target
from patchmill.kernels.views.gpu import filters, footprint, paste, tables

CASES = 30_000
SIDES = np.array([1, 2, 3, 5, 17, 31, 32, 33, 64, 333, 1000, 4096, 8191, 8192])
SIZES = np.array([1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 96, 98, 224, 225, 512])


class Numbers(np.ndarray):
    """An array with the Triton tensor methods that the kernels' arithmetic uses."""

    def to(self, kind: Any) -> Numbers:
        return self.astype(kind)  # type: ignore[return-value]


def numbers(values: Any) -> Numbers:
    """A column: one row per case."""
    return np.asarray(values).reshape(-1, 1).view(Numbers)


LANGUAGE = SimpleNamespace(
    arange=lambda first, stop: np.arange(first, stop, dtype=np.int32).view(Numbers),
    where=lambda *its: np.where(*its).view(Numbers),
    minimum=np.minimum, maximum=np.maximum, sqrt=np.sqrt,
    int32=np.int32, float32=np.float32, float64=np.float64,
)  # fmt: skip


def in_numpy(kernel: Any, **functions: Any) -> Any:
    """A Triton function, run on arrays; `functions` replace those that it calls."""
    return FunctionType(kernel.fn.__code__, {"tl": LANGUAGE, **functions})


place = in_numpy(footprint.footprint)
place_in_mask = in_numpy(paste._mask_footprint, footprint=place)


def cases(seed: int, tile: int) -> dict[str, Numbers]:
    """One axis of a tile of a view, one case per row."""
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
    """Describe the first wrong case."""
    row = int(np.flatnonzero(wrong)[0])
    return str({name: values[row].item() for name, values in it.items()})


@pytest.mark.parametrize(("tile", "bicubic"), list(itertools.product(tables.TILES, (False, True))))
def test_a_tile_reads_only_its_box_and_its_weights_fit(tile: int, bicubic: bool):
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
    """Enlarged to cover its image, it is offset by a fraction of the remaining margin."""
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
    """Groups of both tile sizes and both filters, as read by `fields.locate_block`."""
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
def test_chunks_hold_each_blurred_view_once_and_their_planes_do_not_overlap(chunk: int):
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


@settings(max_examples=60, deadline=None)
@given(
    its=st.lists(
        st.tuples(st.sampled_from([7, 16, 32, 33, 64, 224]), st.booleans(), st.integers(1, 3)),
        min_size=1,
        max_size=5,
    ),
    batch=st.integers(1, 9),
    chunk=st.integers(1, 9),
    likely=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    seed=seeds,
)
def test_compiled_schedules_are_those_of_numpy(
    its: list[tuple[int, bool, int]], batch: int, chunk: int, likely: float, seed: int
):
    """Any targets, chunks that split unevenly, rows of every kind."""
    targets = [target(*it, str(number)) for number, it in enumerate(its)]
    views, rng = sum(it.count for it in targets), np.random.default_rng(seed)
    rows = np.array([[make_row(np.zeros((64, 64, 3)), 64)] * views] * batch)
    rows["sigma"] = rng.random(rows.shape) < likely
    rows["contrast"] = np.where(rng.random(rows.shape) < likely, 0.5, 1)
    rows["order"] = rng.choice([NO_JITTER, 0], rows.shape)
    rows["paste"] = rng.choice([PASTE_NEVER, ON_IMAGE, ON_GREY], rows.shape)
    variants = tables.variants(rows, targets, True, chunk)
    contrast = (rows["order"] != NO_JITTER) & (rows["contrast"] != 1)
    starts, any_later = np.cumsum([0, *(it.count for it in targets)]), False
    for variant in variants:
        members = [i for i, it in enumerate(targets) if kind_of(it) == kind_of(variant)]
        sizes = np.array([targets[i].size for i in members])
        tiles = (-(-sizes // variant.tile)) ** 2
        blocks = {"contrast": -(-(sizes**2) // tables.PIXELS), "blur": tiles}
        needed = {
            "contrast": [contrast & (it > 1) for it in tiles],
            "blur": [rows["sigma"] > 0] * len(members),
        }
        for name in ("contrast", "blur"):
            found: tables.Pass = getattr(variant, name)
            listed = zip(members, needed[name], strict=True)
            expected = schedule(listed, starts, chunk, blocks[name])
            for field in ("groups", "entries", "blocks"):
                np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
            assert found.groups.dtype == found.entries.dtype == np.int32
            any_later |= len(found.entries) > 0
        of_members = [view for i in members for view in range(*starts[i : i + 2])]
        kinds = {int(kind) for kind in np.unique(rows["paste"][:, of_members])} - {PASTE_NEVER}
        assert variant.backgrounds == sum(1 << kind for kind in kinds)
    assert sum(len(variant.resize.groups[0]) for variant in variants) == len(targets)
    assert tables.needs_planes(rows, targets) == any_later


def kind_of(it: Target | tables.Variant) -> tuple[int, bool]:
    return (tables.tile_of(it.size) if isinstance(it, Target) else it.tile), it.bicubic


def schedule(
    listed: Iterable[tuple[int, np.ndarray]], starts: np.ndarray, chunk: int, blocks: np.ndarray
) -> tables.Pass:
    """The pass over the views that need it, [N, V] for each target, in NumPy."""
    entries, counts = [], []
    for member, needed in listed:
        image, view = np.nonzero(needed[:, starts[member] : starts[member + 1]])
        entries.append(image * needed.shape[1] + starts[member] + view)
        counts.append(np.bincount(image // chunk, minlength=-(-len(needed) // chunk)))
    per_chunk = np.array(counts).T  # [chunks, groups]
    stops = (per_chunk * blocks).cumsum(1)
    begins = np.cumsum([0, *(len(group) for group in entries)])[:-1]
    groups = np.stack(
        [
            stops - per_chunk * blocks,
            np.broadcast_to(blocks, per_chunk.shape),
            begins + per_chunk.cumsum(0) - per_chunk,
        ],
        2,
    )
    return tables.Pass(groups, np.concatenate(entries), stops[:, -1].tolist())


def locate(groups: np.ndarray, block: int) -> tuple[int, int]:
    """`fields.locate_block`: the entry of a block, and the block's index within it."""
    first, blocks, entry = groups[np.flatnonzero(groups[:, 0] <= block)[-1]].tolist()
    return entry + (block - first) // blocks, (block - first) % blocks
