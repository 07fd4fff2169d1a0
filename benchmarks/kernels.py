"""Where a kernel's time goes, stage by stage, and how far each stage is from what it cannot avoid.

    python benchmarks/kernels.py views [--recipe dino] [--batch-size 256] [--device cuda|cpu]
        [--dtype bfloat16] [--channels-last] [--rounds 30] [--json FILE]

On a GPU each launch is timed by the GPU's clock and set against two floors: the bytes that must
move, at the memory's full bandwidth, and the arithmetic that must be done, at the multiprocessors'
full rate; what is stated as a share is the larger of the two. On a CPU the stages of the CPU
renderer are timed in one thread.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from patchmill.benchmarks import machine, report, view_stages
from patchmill.benchmarks.view_stages import Machine, Stage
from patchmill.loaders import recipe
from patchmill.loaders.errors import MillError, run_command

DTYPES = ("float32", "float16", "bfloat16", "uint8")


def main() -> None:
    settings = _settings()
    report.check_writable(settings.json)
    device = torch.device(settings.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MillError(
            "there is no CUDA device here: use --device cpu to measure the CPU renderer instead"
        )
    torch.set_num_threads(1)
    views, dtype = recipe.load(settings.recipe), getattr(torch, settings.dtype)
    batch = view_stages.make_batch(views, settings.batch_size)
    last, rounds = settings.channels_last, settings.rounds
    gpu: Machine | None = None
    if device.type == "cuda":
        gpu = view_stages.gpu_machine(device)
        stages = view_stages.on_gpu(batch, device, dtype, last, rounds)
    else:
        stages = view_stages.on_cpu(batch, dtype, last, rounds)
    pixels = views.pixels * settings.batch_size
    what = f"{views.name}, {settings.batch_size} images, {settings.dtype}"
    print(f"{gpu.name if gpu else machine.cpu()}: {what}; medians of {rounds} rounds")
    Console(highlight=False).print(_table(stages, pixels, gpu))
    if settings.json:
        asked = {name: value for name, value in vars(settings).items() if name != "json"}
        rows = [_as_json(stage, pixels, gpu) for stage in stages]
        report.write_json(settings.json, {**asked, "pixels": pixels, "stages": rows})


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


def _settings() -> argparse.Namespace:
    parser = report.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("kernel", choices=["views"])
    parser.add_argument("--recipe", default="dino", help="a preset with its knobs, or a YAML file")
    parser.add_argument("--batch-size", type=int, default=None, help="256 on a GPU, 16 on a CPU")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (%(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    settings = parser.parse_args()
    if settings.batch_size is None:
        settings.batch_size = 16 if settings.device == "cpu" else 256
    if not settings.rounds > 0 or not settings.batch_size > 0:
        raise MillError("--rounds and --batch-size must be above 0")
    return settings


if __name__ == "__main__":
    run_command(main)
