"""Each fused kernel against eager PyTorch, torch.compile and, where there is one, a library.

    python benchmarks/kernels.py [contrast ...] [--device cuda|cpu] [--json FILE] [--plot FILE]
    python benchmarks/kernels.py views [--recipe dino] [--batch-size 256] [--channels-last]

Forward and backward together; contenders take turns. Beside the time stands what a contender takes
in memory beside its inputs and results, and how near it comes to the floor: the bytes that must
move at the rate of a plain copy, or the products that must be made at the rate of a large one,
whichever is slower.

`views` is the renderer, stage by stage. On a GPU each launch is timed by the GPU's clock and set
against two floors: the bytes that must move, at the memory's full bandwidth, and the arithmetic
that must be done, at the multiprocessors' full rate. On a CPU it is timed in one thread.
"""

from __future__ import annotations

import argparse

import torch

from patchmill.benchmarks.lib import report
from patchmill.benchmarks.lib.views import table as view_table
from patchmill.loaders.common.errors import MillError, run_command

OPERATIONS = ("bags", "contrast", "matching", "patches", "regions")
DTYPES = ("float32", "float16", "bfloat16", "uint8")


def main() -> None:
    settings = _settings()
    report.check_writable(settings.json, settings.plot)
    device, dtype = torch.device(settings.device), getattr(torch, settings.dtype)
    if settings.kernels == ["views"]:
        found = view_table.run(
            device,
            settings.recipe,
            settings.batch_size,
            dtype,
            settings.channels_last,
            settings.rounds,
        )
    else:
        from patchmill.benchmarks.operations import table

        found = table.run(settings.kernels, device, dtype, settings.rounds, settings.plot)
    if settings.json:
        asked = {
            name: value for name, value in vars(settings).items() if name not in ("json", "plot")
        }
        report.write_json(settings.json, {**asked, **found})


def _settings() -> argparse.Namespace:
    parser = report.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("kernels", nargs="*", help=f"{', '.join(OPERATIONS)}, or views")
    parser.add_argument("--device", help="cuda, cuda:N or cpu; by default a GPU if there is one")
    parser.add_argument("--dtype", choices=DTYPES, help="bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--rounds", type=int, help="of turns; 30 for views, else 7")
    parser.add_argument("--recipe", default="dino", help="of views: a preset with knobs, or YAML")
    parser.add_argument("--batch-size", type=int, help="of views: 256 on a GPU, 16 on a CPU")
    parser.add_argument("--channels-last", action="store_true", help="of views")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--plot", metavar="FILE", help="draw them as a PNG or SVG")
    settings = parser.parse_args()
    settings.kernels = settings.kernels or list(OPERATIONS)
    _check(settings)
    _fill_in(settings)
    return settings


def _check(settings: argparse.Namespace) -> None:
    if unknown := [it for it in settings.kernels if it not in (*OPERATIONS, "views")]:
        raise MillError(f"there is no kernel {unknown[0]!r}: name some of {', '.join(OPERATIONS)}")
    if "views" in settings.kernels and len(settings.kernels) > 1:
        raise MillError("views are measured by themselves: leave the other kernels to another run")
    if settings.plot:
        report.check_chart()
        if settings.kernels == ["views"]:
            raise MillError("--plot draws the other kernels, not views")
    if any(it is not None and it < 1 for it in (settings.rounds, settings.batch_size)):
        raise MillError("--rounds and --batch-size must be above 0")


def _fill_in(settings: argparse.Namespace) -> None:
    views = settings.kernels == ["views"]
    settings.device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = torch.device(settings.device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise MillError(
            "there is no CUDA device here: use --device cpu to measure the CPU's kernels"
        )
    settings.dtype = settings.dtype or ("bfloat16" if on_gpu or views else "float32")
    settings.rounds = settings.rounds or (30 if views else 7)
    settings.batch_size = settings.batch_size or (256 if on_gpu else 16)
    if settings.dtype == "uint8" and not views:
        raise MillError("--dtype uint8 is for views alone")


if __name__ == "__main__":
    run_command(main)
