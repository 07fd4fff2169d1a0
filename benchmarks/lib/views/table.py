"""Measure and print the renderer's time by stage, for `kernels.py views`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from patchmill.benchmarks.lib import machine, printing
from patchmill.benchmarks.lib.views import stages as view_stages
from patchmill.benchmarks.lib.views.floors import StageFloor
from patchmill.benchmarks.lib.views.predict import HOPPER, Prediction
from patchmill.benchmarks.lib.views.stages import GpuPeaks, StageTime
from patchmill.loaders.recipe_load import load_recipe

if TYPE_CHECKING:
    from rich.table import Table


def run(
    device: torch.device,
    name: str,
    count: int,
    dtype: torch.dtype,
    channels_last: bool,
    rounds: int,
) -> dict[str, Any]:
    """Measure and print; return the results as JSON."""
    torch.set_num_threads(1)
    recipe = load_recipe(name)
    batch = view_stages.make_input(recipe, count)
    peaks: GpuPeaks | None = None
    if device.type == "cuda":
        peaks = view_stages.gpu_peaks(device)
        stages = view_stages.on_gpu(batch, device, dtype, channels_last, rounds)
    else:
        stages = view_stages.on_cpu(batch, dtype, channels_last, rounds)
    pixels = recipe.pixels * count
    workload = f"{recipe.name}, {count} images, {str(dtype).removeprefix('torch.')}"
    print(f"{peaks.name if peaks else machine.cpu()}: {workload}; medians of {rounds} rounds")
    printing.console().print(_table(stages, pixels, peaks))
    return {"pixels": pixels, "stages": [_as_json(stage, pixels, peaks) for stage in stages]}


def predict(name: str, count: int, dtype: torch.dtype, channels_last: bool) -> dict[str, Any]:
    """Print the model's prediction for a GPU that is not present; return it as JSON."""
    recipe = load_recipe(name)
    rows = [
        _predicted(prediction, floor)
        for prediction, floor in view_stages.predicted(recipe, count, dtype, channels_last)
    ]
    workload = f"{recipe.name}, {count} images, {str(dtype).removeprefix('torch.')}"
    print(f"{HOPPER.name}, predicted from machine code, not measured: {workload}; microseconds")
    table = printing.new_table(
        "stage", *(key.replace("_", " ") for key in rows[0] if key != "stage")
    )
    for row in rows:
        table.add_row(
            *(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row.values())
        )
    printing.console().print(table)
    return {"chip": HOPPER.name, "pixels": recipe.pixels * count, "predicted": rows}


def _predicted(prediction: Prediction, floor: StageFloor | None) -> dict[str, Any]:
    micros = {name: round(1e6 * seconds) for name, seconds in prediction.parts.items()}
    entries = {
        "stage": prediction.stage,
        "launches": prediction.launches,
        "warps": prediction.warps,
        "million_instructions": round(prediction.instructions / 1e6),
        **micros,
        "predicted": round(1e6 * prediction.seconds),
        "limit": prediction.limit,
    }
    if floor is None:
        return entries | {"floor": "", "floor_share": ""}
    least = floor.seconds(HOPPER.memory, HOPPER.filter_rate, HOPPER.other_rate)
    return entries | {
        "floor": round(1e6 * least),
        "floor_share": round(least / prediction.seconds, 2),
    }


def _table(stages: list[StageTime], pixels: int, peaks: GpuPeaks | None) -> Table:
    columns = ["µs", "low to high", "ps per pixel"]
    columns += ["memory floor µs", "arithmetic floor µs", "floor / time"] if peaks else []
    table = printing.new_table("stage", *columns)
    for stage in stages:
        entries = _as_json(stage, pixels, peaks)
        quartiles = f"{1e6 * stage.seconds.low:,.0f} to {1e6 * stage.seconds.high:,.0f}"
        cells = [f"[bold]{entries['us']:,.0f}[/]", quartiles, f"{entries['ps_per_pixel']:,.1f}"]
        if "floor_share" in entries:
            cells += [
                f"{entries['memory_floor_us']:,.1f}",
                f"{entries['arithmetic_floor_us']:,.1f}",
            ]
            cells += [f"{entries['floor_share']:.0%}"]
        table.add_row(stage.name, *cells)
    return table


def _as_json(stage: StageTime, pixels: int, peaks: GpuPeaks | None) -> dict[str, Any]:
    seconds, floor = stage.seconds.median, stage.floor
    entries = {
        "stage": stage.name,
        "us": round(1e6 * seconds, 2),
        "spread": round(stage.seconds.spread, 3),
        "ps_per_pixel": round(1e12 * seconds / pixels, 2),
    }
    if peaks is None or floor is None:
        return entries
    memory = floor.memory(peaks.bandwidth)
    arithmetic = floor.arithmetic(peaks.filter_rate, peaks.other_rate)
    return entries | {
        "bytes": round(floor.bytes),
        "memory_floor_us": round(1e6 * memory, 2),
        "arithmetic_floor_us": round(1e6 * arithmetic, 2),
        "floor_share": round(max(memory, arithmetic) / seconds, 4),
    }
