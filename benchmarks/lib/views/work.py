"""Work of the GPU renderer's launches, from decision rows: blocks, loop trips, bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchmill.benchmarks.lib.views.floors import visible_pixels
from patchmill.kernels.views.decisions import CONTRAST, NO_JITTER, Target

PLANES = 6  # bytes per pixel of the float16 planes between two passes
WEIGHTS_STEP = 32  # source pixels per trip of `weigh`
JITTER_SHARE = 0.25  # of its loop's instructions run per trip: one of four operations


@dataclass(frozen=True)
class Work:
    """Work of a stage's launches, summed over all blocks."""

    blocks: float
    trips: Sequence[float]  # of the loops around the hottest and of itself, outermost first
    other_trips: float  # of other loops
    cache_bytes: float  # read and written
    memory_bytes: float  # not kept in the L2 cache


def work(
    rows: np.ndarray, shapes: np.ndarray, targets: Sequence[Target], number_bytes: int,
    constants: Mapping[str, Mapping[str, Any]],
) -> dict[str, Work]:  # fmt: skip
    """Work by stage, for rows [N, views] of images with these shapes and the kernels' constants."""
    found: dict[str, list[Work]] = {name: [] for name in ("weigh", "resize", "contrast", "blur")}
    first = 0
    for target in targets:
        group = rows[:, first : first + target.count]
        first += target.count
        view = 3.0 * target.size**2 * number_bytes
        for name, one in zip(found, (_weigh, _resize, _contrast, _blur), strict=True):
            if name in constants:
                found[name].append(one(group, target, view, constants[name]))
    stages = {name: _sum(several) for name, several in found.items() if several}
    images = 3.0 * visible_pixels(rows, shapes, targets)
    resize = stages["resize"]
    stages["resize"] = Work(
        resize.blocks, resize.trips, resize.other_trips, resize.cache_bytes,
        resize.memory_bytes + images,
    )  # fmt: skip
    return stages


def _sum(several: list[Work]) -> Work:
    trips = [sum(each) for each in zip(*(one.trips for one in several), strict=True)]
    return Work(
        sum(one.blocks for one in several),
        trips,
        sum(one.other_trips for one in several),
        sum(one.cache_bytes for one in several),
        sum(one.memory_bytes for one in several),
    )


def _weigh(rows: np.ndarray, target: Target, view: float, constants: Mapping[str, Any]) -> Work:
    tiles = -(-target.size // constants["TILE"])
    taps = sum(_footprints(rows, axis, target, constants["TILE"]).sum() for axis in "hw")
    written = taps * 2.0 * constants["TILE"]
    steps = taps / WEIGHTS_STEP / 2 + tiles * rows.size / 2  # the last one half full
    return Work(2 * tiles * rows.size, [steps], steps, written, 0)  # one loop per axis


def _resize(rows: np.ndarray, target: Target, view: float, constants: Mapping[str, Any]) -> Work:
    down = _footprints(rows, "h", target, constants["TILE"])
    across = _footprints(rows, "w", target, constants["TILE"])
    outer, inner = -(-across // constants["TAPS_X"]), -(-down // constants["TAPS_Y"])
    sides = down.shape[-1]
    own_pass, blurred, position = _passes(rows, target, constants["TILE"])
    jittered = rows["order"] != NO_JITTER
    operations = np.where(own_pass, position, np.where(jittered, 4, 0))
    finished = view * (~own_pass & ~blurred).sum()
    planes = PLANES * target.size**2 * (own_pass | blurred).sum()
    pixels = 3.0 * (down.sum(-1) * across.sum(-1)).sum()
    weights = 2.0 * constants["TILE"] * sides * (down.sum() + across.sum())
    return Work(
        sides**2 * rows.size,
        [sides * float(outer.sum()), float((outer.sum(-1) * inner.sum(-1)).sum())],
        JITTER_SHARE * sides**2 * float(operations.sum()),
        pixels + weights + finished + planes,
        finished,
    )


def _contrast(rows: np.ndarray, target: Target, view: float, constants: Mapping[str, Any]) -> Work:
    own_pass, blurred, position = _passes(rows, target, constants["TILE"])
    views, area = int(own_pass.sum()), target.size**2
    steps = views * -(-area // constants["STEP"])
    operations = JITTER_SHARE * (4 - position[own_pass]).mean() if views else 0.0
    finished = view * (own_pass & ~blurred).sum()
    planes = PLANES * area * (views + (own_pass & blurred).sum())
    blocks = views * -(-area // constants["PIXELS"])
    return Work(blocks, [steps, steps * operations], blocks, planes + finished, finished)


def _blur(rows: np.ndarray, target: Target, view: float, constants: Mapping[str, Any]) -> Work:
    radius, size, tile = rows["radius"][rows["sigma"] > 0], target.size, constants["TILE"]
    first = np.arange(0, size, tile)
    start = np.maximum(first - radius[:, None], 0)
    stop = np.minimum(first + tile + radius[:, None], size)
    down, across = stop - start, stop - start // 8 * 8
    steps, strips = -(-down // constants["TAPS_Y"]), -(-across // constants["TAPS_X"])
    sides = len(first)
    outer = sides * float(steps.sum())
    read = PLANES * float((down.sum(1) * across.sum(1)).sum())
    inner = float((steps.sum(1) * strips.sum(1)).sum())
    blocks = len(radius) * sides**2
    return Work(
        blocks, [outer, outer, inner], blocks, read + view * len(radius), view * len(radius)
    )


def _passes(
    rows: np.ndarray, target: Target, tile: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the views with a contrast pass, the blurred ones, and contrast's place in the order."""
    own_pass = (rows["order"] != NO_JITTER) & (rows["contrast"] != 1) & (target.size > tile)
    position = sum(
        i * (((rows["order"] >> (2 * i)) & 3) == CONTRAST).astype(int) for i in range(1, 4)
    )
    return own_pass, rows["sigma"] > 0, np.asarray(position)


def _footprints(rows: np.ndarray, axis: str, target: Target, tile: int) -> np.ndarray:
    """Source pixels that each tile of a line reads [..., tiles]."""
    box, full = rows[f"box_{axis}"][..., None], rows[f"full_{axis}"][..., None]
    window = rows["win_y" if axis == "h" else "win_x"][..., None]
    scale = box / full
    reach = (2 if target.bicubic else 1) * np.maximum(scale, 1)
    first = np.arange(0, target.size, tile) + window
    low = np.clip(first, 0, full - 1)
    high = np.clip(np.minimum(first + tile, window + target.size) - 1, 0, full - 1)
    start = np.maximum((low + 0.5) * scale - reach, 0).astype(np.int64)
    stop = np.minimum(((high + 0.5) * scale + reach).astype(np.int64) + 1, box)
    return stop - start
