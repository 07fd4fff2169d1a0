"""Compare each fused kernel with eager PyTorch, torch.compile and, where one exists, a library.

    python benchmarks/kernels.py [contrast ...] [--device cuda|cpu] [--json FILE] [--plot FILE]
    python benchmarks/kernels.py views [--recipe dino] [--batch-size 256] [--channels-last]
    python benchmarks/kernels.py views --predict

Contenders run forward and backward, in turns. Reported are the time, the peak memory beyond inputs
and results, and the roofline floor as a share of the time: the bytes that must be moved at the
bandwidth of a plain copy, or the matrix products at the rate of a large one, whichever is slower.

`views` times the renderer stage by stage. On a GPU each kernel is timed by CUDA events and compared
with two floors: the bytes that must be moved at the full memory bandwidth, and the arithmetic at
the peak rate. On a CPU it runs in one thread. --predict compiles them for an H200 and prints times
predicted by a model, without a GPU: lib/views/predict.py states its assumptions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from patchmill.benchmarks.lib import report
from patchmill.benchmarks.lib.views import table as view_table
from patchmill.loaders.common.errors import MillError, run_command

OPERATIONS = ("bags", "contrast", "matching", "patches", "regions")
DTYPES = ("float32", "float16", "bfloat16", "uint8")


def main(argv: Sequence[str] | None = None) -> None:
    settings = _settings(argv)
    report.check_writable(settings.json, settings.plot)
    device, dtype = torch.device(settings.device), getattr(torch, settings.dtype)
    if settings.predict:
        results = view_table.predict(
            settings.recipe, settings.batch_size, dtype, settings.channels_last
        )
    elif settings.kernels == ["views"]:
        results = view_table.run(
            device,
            settings.recipe,
            settings.batch_size,
            dtype,
            settings.channels_last,
            settings.rounds,
        )
    else:
        from patchmill.benchmarks.operations import table

        results = table.run(settings.kernels, device, dtype, settings.rounds, settings.plot)
    if settings.json:
        options = {
            name: value for name, value in vars(settings).items() if name not in ("json", "plot")
        }
        report.write_json(settings.json, {**options, **results})


def _settings(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = report.Parser("kernels", __doc__, "[KERNEL ...]")
    parser.add_argument("kernels", nargs="*", help=f"{', '.join(OPERATIONS)}, or views")
    parser.add_argument("--device", help="cuda, cuda:N or cpu; default: a GPU if there is one")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="default: bfloat16 on a GPU, float32 on a CPU"
    )
    parser.add_argument("--rounds", type=int, help="measured rounds; default: 30 for views, else 7")
    parser.add_argument(
        "--recipe", default="dino", help="for views: a preset with its knobs, or a YAML file"
    )
    parser.add_argument(
        "--batch-size", type=int, help="for views; default: 256 on a GPU, 16 on a CPU"
    )
    parser.add_argument("--channels-last", action="store_true", help="for views")
    parser.add_argument(
        "--predict", action="store_true", help="predict the times of views on an H200"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--plot", metavar="FILE", help="draw them as a PNG or SVG")
    settings = parser.parse_args(argv)
    settings.kernels = settings.kernels or list(OPERATIONS)
    _check(settings)
    _set_defaults(settings)
    return settings


def _check(settings: argparse.Namespace) -> None:
    if unknown := [name for name in settings.kernels if name not in (*OPERATIONS, "views")]:
        raise MillError(f"there is no kernel {unknown[0]!r}: choose from {', '.join(OPERATIONS)}")
    if "views" in settings.kernels and len(settings.kernels) > 1:
        raise MillError("views are measured by themselves: run the other kernels separately")
    if settings.predict and settings.kernels != ["views"]:
        raise MillError("--predict is only for views")
    if settings.plot:
        report.check_chart()
        if settings.kernels == ["views"]:
            raise MillError("--plot cannot draw views: omit it")
    if any(value is not None and value < 1 for value in (settings.rounds, settings.batch_size)):
        raise MillError("--rounds and --batch-size must be above 0")


def _set_defaults(settings: argparse.Namespace) -> None:
    views = settings.kernels == ["views"]
    settings.device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = torch.device(settings.device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise MillError("there is no CUDA device here: use --device cpu to measure the CPU kernels")
    settings.dtype = settings.dtype or ("bfloat16" if on_gpu or views else "float32")
    settings.rounds = settings.rounds or (30 if views else 7)
    settings.batch_size = settings.batch_size or (256 if on_gpu or settings.predict else 16)
    if settings.dtype == "uint8" and not views:
        raise MillError("--dtype uint8 is only for views")


if __name__ == "__main__":
    run_command(main)
