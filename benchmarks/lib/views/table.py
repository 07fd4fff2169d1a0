"""`kernels.py views`: where the renderer's time goes, stage by stage, shown and as JSON."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from patchmill.benchmarks.lib import machine
from patchmill.benchmarks.lib.views import stages as view_stages
from patchmill.benchmarks.lib.views.stages import Machine, Stage
from patchmill.loaders.recipe_load import load_recipe


def run(
    device: torch.device,
    name: str,
    count: int,
    dtype: torch.dtype,
    channels_last: bool,
    rounds: int,
) -> dict[str, Any]:
    """Measures, shows, and gives what goes to JSON."""
    torch.set_num_threads(1)
    views = load_recipe(name)
    batch = view_stages.make_batch(views, count)
    gpu: Machine | None = None
    if device.type == "cuda":
        gpu = view_stages.gpu_machine(device)
        stages = view_stages.on_gpu(batch, device, dtype, channels_last, rounds)
    else:
        stages = view_stages.on_cpu(batch, dtype, channels_last, rounds)
    pixels = views.pixels * count
    what = f"{views.name}, {count} images, {str(dtype).removeprefix('torch.')}"
    print(f"{gpu.name if gpu else machine.cpu()}: {what}; medians of {rounds} rounds")
    Console(highlight=False).print(_table(stages, pixels, gpu))
    return {"pixels": pixels, "stages": [_as_json(stage, pixels, gpu) for stage in stages]}


def _table(stages: list[Stage], pixels: int, gpu: Machine | None) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage")
    columns = ["µs", "low to high", "ps a pixel"]
    columns += ["memory floor µs", "arithmetic floor µs", "floor / time"] if gpu else []
    for title in columns:
        table.add_column(title, justify="right")
    for stage in stages:
        found = _as_json(stage, pixels, gpu)
        spread = f"{1e6 * stage.seconds.low:,.0f} to {1e6 * stage.seconds.high:,.0f}"
        cells = [f"[bold]{found['us']:,.0f}[/]", spread, f"{found['ps_per_pixel']:,.1f}"]
        if "floor_share" in found:
            cells += [f"{found['memory_floor_us']:,.1f}", f"{found['arithmetic_floor_us']:,.1f}"]
            cells += [f"{found['floor_share']:.0%}"]
        table.add_row(stage.name, *cells)
    return table


def _as_json(stage: Stage, pixels: int, gpu: Machine | None) -> dict[str, Any]:
    seconds, floor = stage.seconds.median, stage.floor
    found = {
        "stage": stage.name,
        "us": round(1e6 * seconds, 2),
        "spread": round(stage.seconds.spread, 3),
        "ps_per_pixel": round(1e12 * seconds / pixels, 2),
    }
    if gpu is None or floor is None:
        return found
    memory = floor.memory(gpu.bandwidth)
    arithmetic = floor.arithmetic(gpu.filter_rate, gpu.other_rate)
    return found | {
        "bytes": round(floor.bytes),
        "memory_floor_us": round(1e6 * memory, 2),
        "arithmetic_floor_us": round(1e6 * arithmetic, 2),
        "floor_share": round(max(memory, arithmetic) / seconds, 4),
    }
