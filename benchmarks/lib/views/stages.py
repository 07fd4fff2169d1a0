"""Time the stages of the GPU and CPU renderers on a batch of random images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from patchmill.benchmarks.lib import timing
from patchmill.benchmarks.lib.timing import Summary
from patchmill.benchmarks.lib.views.floors import StageFloor, floors, total
from patchmill.benchmarks.lib.views.predict import HOPPER, Chip, Prediction, combined, predict
from patchmill.benchmarks.lib.views.work import work
from patchmill.kernels.common.jit import jit
from patchmill.kernels.views import layout
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.cpu.blur import blur
from patchmill.kernels.views.cpu.colour import colour
from patchmill.kernels.views.cpu.encode import encode_view
from patchmill.kernels.views.cpu.resize import plane_pitch, resize
from patchmill.kernels.views.decisions import Target
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe

# Common sizes in ImageNet, whose images have 1.8e5 pixels on average.
SHAPES = [(375, 500), (500, 375), (333, 500), (500, 333), (480, 640), (256, 341), (400, 400)]


@dataclass(frozen=True)
class StageTime:
    name: str
    seconds: Summary  # per batch
    floor: StageFloor | None = None


@dataclass(frozen=True)
class GpuPeaks:
    """Peak rates of a GPU per second, from its clocks and widths."""

    name: str
    bandwidth: float  # bytes
    filter_rate: float  # multiply-adds of float16 on tensor cores
    other_rate: float  # float32 operations; a multiply-add counts as two


@dataclass(frozen=True)
class RenderInput:
    images: list[np.ndarray]
    rows: np.ndarray
    targets: Sequence[Target]

    @property
    def shapes(self) -> np.ndarray:
        return np.array([image.shape[:2] for image in self.images])


def make_input(recipe: Recipe, count: int) -> RenderInput:
    """Images of noise, which take as long as photos, and their decision rows."""
    rng = np.random.default_rng(0)
    shapes = [SHAPES[i % len(SHAPES)] for i in range(count)]
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    rows = draw.draw(recipe, 0, 0, np.arange(count), shapes).rows
    return RenderInput(images, rows, draw.targets(recipe))


# --------------------------------------------------------------------------------------- on a GPU


def on_gpu(
    batch: RenderInput, device: torch.device, dtype: torch.dtype, channels_last: bool, rounds: int
) -> list[StageTime]:
    """Time the kernels with CUDA events, and the preparation of their tables on the host."""
    from patchmill.kernels.views.gpu import launch as gpu_launch
    from patchmill.kernels.views.gpu.tables import TILES, Images

    torch.cuda.set_device(device.index or 0)
    uploaded = [torch.from_numpy(image).to(device) for image in batch.images]
    elements = layout.elements(batch.targets, len(uploaded))
    out = torch.empty(elements, dtype=dtype, device=device)
    images = Images.of(uploaded)

    def prepare() -> Any:
        return gpu_launch.launches(out, images, batch.rows, batch.targets, channels_last)

    host_seconds, launch_seconds, total_seconds = [], [], []
    for number in range(rounds + 3):
        start = time.perf_counter()
        launches = prepare()
        prepared = time.perf_counter() - start
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(launches) + 1)]
        torch.cuda.synchronize()
        torch.cuda._sleep(2_000_000)  # the launches are queued before the first begins
        marks[0].record()
        for launch, mark in zip(launches, marks[1:], strict=True):
            launch()
            mark.record()
        torch.cuda.synchronize()
        if number >= 3:  # warm-up: compiles, and allocates memory
            host_seconds.append(prepared)
            times = [a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(marks)]
            launch_seconds.append(times)
            total_seconds.append(sum(times))
    stage_floors = floors(batch.rows, batch.shapes, batch.targets, out.element_size(), TILES[-1])
    names = [launch.kernel.__name__ for launch in prepare()]
    stages = []
    for name in dict.fromkeys(names):
        times = [
            sum(t for n, t in zip(names, row, strict=True) if n == name) for row in launch_seconds
        ]
        stages.append(StageTime(name, timing.summary(times), stage_floors.get(name)))
    combined = total(stage_floors.values())
    stages.append(StageTime("all launches", timing.summary(total_seconds), combined))
    return [*stages, StageTime("host: tables and upload", timing.summary(host_seconds))]


def gpu_peaks(device: torch.device) -> GpuPeaks:
    """Peak rates at the maximum clocks that the driver reports."""
    from triton.runtime import driver

    properties = driver.active.utils.get_device_properties(device.index or 0)
    major, minor = torch.cuda.get_device_capability(device)
    multipliers = {(8, 0): 1024, (9, 0): 2048, (10, 0): 4096}.get((major, minor), 512)
    cycles = properties["multiprocessor_count"] * properties["sm_clock_rate"] * 1e3
    bandwidth = 2 * properties["mem_clock_rate"] * 1e3 * properties["mem_bus_width"] / 8
    lanes = 64 if (major, minor) == (8, 0) else 128
    name = torch.cuda.get_device_name(device)
    return GpuPeaks(name, bandwidth, cycles * multipliers, cycles * lanes * 2)


# ---------------------------------------------------------------------------------- without a GPU


def predicted(
    recipe: Recipe, count: int, dtype: torch.dtype, channels_last: bool, chip: Chip = HOPPER
) -> list[tuple[Prediction, StageFloor | None]]:
    """Times of the stages by the model in `predict`, from code compiled here, and their floors."""
    from patchmill.benchmarks.lib.machine_code.compiling import compile_launch
    from patchmill.kernels.views.gpu import launch as gpu_launch
    from patchmill.kernels.views.gpu.tables import TILES, Images

    shapes = np.array([SHAPES[i % len(SHAPES)] for i in range(count)])
    rows = draw.draw(recipe, 0, 0, np.arange(count), shapes.tolist()).rows
    targets = draw.targets(recipe)
    out = torch.empty(layout.elements(targets, count), dtype=dtype)
    images = Images(np.zeros(count, np.int64), shapes, 3 * shapes[:, 1])
    launches = gpu_launch.launches(out, images, rows, targets, channels_last)
    by_stage: dict[str, list[Any]] = {}
    for launch in launches:
        by_stage.setdefault(launch.kernel.__name__, []).append(launch)
    constants = {name: several[0].arguments for name, several in by_stage.items()}
    works = work(rows, shapes, targets, out.element_size(), constants)
    stage_floors = floors(rows, shapes, targets, out.element_size(), TILES[-1])
    found: list[tuple[Prediction, StageFloor | None]] = []
    for name, several in by_stage.items():
        first = several[0]
        code, metadata = compile_launch(first.kernel, first.arguments, chip.capability)
        sizes = metadata.shared, metadata.num_warps
        prediction = predict(name, len(several), code, *sizes, works[name], chip)
        found.append((prediction, stage_floors.get(name)))
    everything = combined([prediction for prediction, _ in found])
    return [*found, (everything, total(stage_floors.values()))]


# --------------------------------------------------------------------------------------- on a CPU


def on_cpu(
    batch: RenderInput, dtype: torch.dtype, channels_last: bool, rounds: int
) -> list[StageTime]:
    """Time the stages over the views of one image after another, in one thread."""
    largest = max(target.size for target in batch.targets)
    height, width = batch.shapes.max(0)
    pool = render.Scratch().reserve(height, width, largest)
    slots = render.slots(batch.targets, 1, dtype == torch.uint8)
    plane_elements = 3 * largest * int(plane_pitch(largest))
    planes = np.zeros((len(slots), plane_elements), np.int16)
    out, half = render.flat_numpy(torch.empty(layout.elements(batch.targets, 1), dtype=dtype))

    stages: dict[str, Callable[[np.ndarray, np.ndarray], None]] = {
        "resize": lambda image, rows: _resize(image, rows, slots, planes, pool),
        "colour": lambda image, rows: _colour(rows, slots, planes, pool),
        "blur": lambda image, rows: _blur(rows, slots, planes, pool),
        "finish": lambda image, rows: _encode(rows, slots, planes, half, channels_last, out, pool),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for number in range(rounds + 1):
        round_seconds = dict.fromkeys(stages, 0.0)
        for image, rows in zip(batch.images, batch.rows, strict=True):
            for name, stage in stages.items():
                start = time.perf_counter()
                stage(image, rows)
                round_seconds[name] += time.perf_counter() - start
        if number:  # the first round compiles
            for name in stages:
                seconds[name].append(round_seconds[name])
    totals = [sum(times) for times in zip(*seconds.values(), strict=True)]
    parts = [StageTime(name, timing.summary(times)) for name, times in seconds.items()]
    return [*parts, StageTime("all stages", timing.summary(totals))]


@jit
def _resize(image, rows, slots, planes, pool):
    for v in range(len(rows)):
        bicubic = slots[v].bicubic != 0
        resize(image, rows[v], slots[v].size, bicubic, rows[v].flip != 0, False, planes[v], pool)


@jit
def _colour(rows, slots, planes, pool):
    for v in range(len(rows)):
        colour(rows[v], slots[v].size, planes[v], pool)


@jit
def _blur(rows, slots, planes, pool):
    for v in range(len(rows)):
        if rows[v].sigma > 0:
            blur(rows[v], slots[v].size, planes[v], pool)


@jit
def _encode(rows, slots, planes, half, channels_last, out, pool):
    for v in range(len(rows)):
        slot, transposed = slots[v], (rows[v].turns & 1 == 0) != (rows[v].sigma > 0)
        encode_view(
            planes[v], transposed, rows[v], slot, half, channels_last, out, slot.offset, pool
        )
