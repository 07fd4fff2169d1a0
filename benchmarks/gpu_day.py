"""Run all GPU checks and measurements, most valuable first, within a time budget; write one page.

    python benchmarks/gpu_day.py [--minutes 13] [--out DIR] [--part NAME ...] [--resume] [--dry-run]
        [--rehearse]

For a fresh machine with a GPU, from a checkout: requires torch, Triton, NumPy and Numba, and pytest
for the tests; steps that need other packages are skipped, as the page says. Each step is a process
with its own time limit, so that none can stop the next, and writes its result and log to DIR
immediately. A step whose estimate no longer fits is not started. Without a GPU, steps that need
none are run. --dry-run prints the plan; --rehearse runs every command in its smallest form on a
CPU, to find mistakes before a GPU is available.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # without an installation: this checkout is run
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from patchmill.benchmarks.lib.gpu_day import day as days
from patchmill.benchmarks.lib.gpu_day import here, page, record
from patchmill.benchmarks.lib.gpu_day.day import Day
from patchmill.benchmarks.lib.gpu_day.steps import NAMES, ROOT, STEPS
from patchmill.loaders.common import arguments, calls
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.files.writing import output_errors, write_atomic

OUT = "build/gpu-day"
MINUTES = 13.0


def main(argv: Sequence[str] | None = None) -> None:
    settings = _settings(argv)
    if not (ROOT / "tests").is_dir():
        raise MillError("this benchmark runs tests: run it in a checkout of the project")
    parts = settings.part or NAMES
    steps = [step for step in STEPS if step.name in parts]
    machine = here.look()
    if settings.cores:
        machine = replace(machine, cores=settings.cores)
    day = Day(steps, machine, Path(settings.out).resolve(), settings.minutes, settings.rehearse)
    if settings.dry_run:
        _show_plan(day)
        return
    with output_errors(day.out):
        day.out.mkdir(parents=True, exist_ok=True)
        finished = _run(day, settings)
    if not finished:
        raise MillError(f"interrupted; to continue: {_again(settings)}")


def _run(day: Day, settings: Any) -> bool:
    """Run all due steps, and write and print the page; True unless interrupted."""
    entries = record.read(day.out) if settings.resume or settings.part else {}
    if settings.part and not settings.resume:
        entries = {name: entry for name, entry in entries.items() if name not in settings.part}
    finished = days.run(day, entries, lambda text: print(text, flush=True))
    text = page.page(STEPS, entries, day.about, day.out)
    write_atomic(day.out / page.FILE, text)
    print(f"\n{text}\nThis page is {day.out / page.FILE}; results and logs are next to it")
    return finished


def _again(settings: Any) -> str:
    parts = [word for name in settings.part for word in ("--part", name)]
    rehearse = ["--rehearse"] if settings.rehearse else []
    arguments = ["--resume", "--out", settings.out, "--minutes", f"{settings.minutes:g}"]
    return shlex.join(["python", "benchmarks/gpu_day.py", *arguments, *parts, *rehearse])


def _show_plan(day: Day) -> None:
    """Print the steps with their estimates and when each would end."""
    if not day.here.gpu:
        print("There is no CUDA device here: this is the plan for a machine with one.")
        day = replace(day, here=replace(day.here, gpu="a GPU"))
    print(f"{day.here.gpu}, {day.here.cores} cores, {day.minutes:g} minutes\n")
    print(f"{'step':<16} {'variants':>8} {'estimate':>9} {'limit':>7} {'ends at':>8}")
    clock = 0.0
    for step, entry in days.plan(day):
        clock += entry.estimate if entry.state == "held" else 0
        limit, over = f"{entry.limit:.0f} s", f"{clock / 60:4.1f} min"
        if entry.state != "held":
            limit, over = "", f"{entry.state}{': ' * bool(entry.why)}{entry.why}"
        variants, estimate = step.variants or "", f"{entry.estimate:.0f} s"
        print(f"{step.name:<16} {variants:>8} {estimate:>9} {limit:>7}  {over}")
    print("\nEstimate: kernel variants x seconds to compile one / processes, plus the rest.")


def _settings(argv: Sequence[str] | None) -> Any:
    paragraphs = [text for text in (__doc__ or "").split("\n\n") if not text.startswith("    ")]
    parser = arguments.Parser("patchmill bench gpu-day", "", "\n\n".join(paragraphs))
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="for all steps together (%(default)s)"
    )
    parser.add_argument("--out", default=OUT, metavar="DIR", help="of results (%(default)s)")
    parser.add_argument(
        "--part",
        action="append",
        default=[],
        metavar="NAME",
        help=f"run only this step, or a comma-separated list; may be repeated: {', '.join(NAMES)}",
    )
    parser.add_argument("--cores", type=int, help="cores to use and to plan with (default: all)")
    parser.add_argument(
        "--resume", action="store_true", help="continue: run the steps without a result in DIR"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan without running it")
    parser.add_argument(
        "--rehearse", action="store_true", help="run each command in its smallest form, on a CPU"
    )
    settings = parser.parse_args(argv)
    settings.part = [name for text in settings.part for name in text.split(",") if name]
    for name in settings.part:
        if name not in NAMES:
            raise MillError(f"there is no step {name!r}{calls.nearest(name, dict.fromkeys(NAMES))}")
    for name in ("minutes", "cores"):
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise MillError(f"--{name} must be above 0, not {value:g}")
    return settings


if __name__ == "__main__":
    run_command(main)
