"""Measure the time until loading can start: imports, compilation, and a large folder's index.

    python benchmarks/startup.py [--files 1281167] [--folders 1000] [--json FILE]

The files are empty and freshly created, so their names are still in memory: a first start from a
cold disk takes longer. Every import and every start is a new process; Python's own start-up time is
subtracted from imports and indexes. A program's first start compiles the CPU kernels into an empty
cache, its later start loads them; otherwise each does as little as possible.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from patchmill.benchmarks.lib import machine, report, timing
from patchmill.benchmarks.lib.report import Parser
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track

ROUNDS = 5

PYTHON = "pass"
IMPORTS = ("import torch", "import patchmill.loaders", "import torch, patchmill.loaders")
START = "import sys; from patchmill.loaders.sources import open_source; open_source(sys.argv[1])"

ROOT = Path(__file__).parents[1]
SCENES = "scenes(count=16, size=64)"
RECIPE = "dino(local_crops=2)"
LOADER = """
from patchmill import loaders
next(iter(loaders.build("scenes(count=16, size=64)", "dino(local_crops=2)", batch_size=8)))
"""
PROGRAMS = {  # arguments of `python`
    "a preview": f"-m|patchmill|preview|{SCENES}|--recipe|{RECIPE}|--count|2|--out|sheet.png",
    "a loader's batch": f"-c|{LOADER}",
    "two steps of training": (
        f"{ROOT}/training/run.py|method=dilo|data=biased_scenes|train.epochs=1|train.batch_size=8"
        f"|data.train={SCENES}|data.test={SCENES}|out=runs"
    ),
}


@dataclass(frozen=True)
class Cost:
    """Seconds that a program took."""

    wall: float
    cpu: float  # of all its threads and processes


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    report.check_writable(arguments.json)
    seconds = imports() | index(arguments.files, arguments.folders)
    costs = compilation()
    print(f"{machine.cpu()}, {machine.cores()} cores")
    for name, value in seconds.items():
        print(f"{name:<40}{value:>8.2f} s")
    for name, cost in costs.items():
        print(f"{name:<40}{cost.wall:>8.2f} s{cost.cpu:>8.2f} s of CPU time")
    if arguments.json:
        rounded = {name: round(value, 3) for name, value in seconds.items()}
        starts = {name: asdict(cost) for name, cost in costs.items()}
        report.write_json(arguments.json, {"seconds": rounded, "starts": starts})


def imports() -> dict[str, float]:
    """Seconds of each import statement."""
    turns = {program: partial(_run, program) for program in (PYTHON, *IMPORTS)}
    timing.interleave(turns, 1)  # warm-up
    seconds = timing.interleave(turns, ROUNDS)
    bare = timing.summary(seconds[PYTHON]).median
    return {program: timing.summary(seconds[program]).median - bare for program in IMPORTS}


def index(files: int, folders: int) -> dict[str, float]:
    """Seconds of the first start, which writes the index, and of later ones; imports included."""
    with tempfile.TemporaryDirectory(prefix="patchmill-") as root:
        _make_files(Path(root, "images"), files, folders)
        start = partial(_run, START, Path(root, "images"), cache=Path(root, "cache"))
        first, *later = [start() for _ in range(1 + ROUNDS)]
    bare = timing.summary([_run(PYTHON) for _ in range(ROUNDS)]).median
    return {
        f"first start on {files:,} files": first - bare,
        f"later start on {files:,} files": timing.summary(later).median - bare,
    }


def compilation() -> dict[str, Cost]:
    """Seconds of each program's first start, with nothing compiled, and of its second."""
    costs = {}
    for name, command in PROGRAMS.items():
        with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
            costs[f"{name}, first start"] = _start(command.split("|"), Path(folder))
            costs[f"{name}, later start"] = _start(command.split("|"), Path(folder))
    return costs


def _start(command: Sequence[str], folder: Path) -> Cost:
    """Run Python in a folder that also holds the caches of kernels and data."""
    caches = {"NUMBA_CACHE_DIR": f"{folder}/kernels", "PATCHMILL_CACHE": f"{folder}/data"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | caches,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise MillError(f"{command[0]} {command[1]} failed: {done.stdout.strip()[-300:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(round(wall, 2), round(cpu, 2))


def _make_files(root: Path, files: int, folders: int) -> None:
    with track("making empty files", files) as advance:
        for number in range(folders):
            folder = root / f"class{number:05d}"
            folder.mkdir(parents=True)
            indices = range(number, files, folders)
            for i in indices:
                os.close(os.open(f"{folder}/{i:08d}.JPEG", os.O_CREAT | os.O_WRONLY))
            advance(len(indices))


def _run(program: str, *arguments: Path, cache: Path | None = None) -> float:
    """Wall seconds of a program in a new Python process."""
    environment = os.environ | ({"PATCHMILL_CACHE": str(cache)} if cache else {})
    start = time.perf_counter()
    command = [sys.executable, "-c", program, *map(str, arguments)]
    subprocess.run(command, check=True, env=environment)
    return time.perf_counter() - start


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("startup", __doc__)
    parser.add_argument(
        "--files", type=int, default=1_281_167, help="default: as many as in ImageNet"
    )
    parser.add_argument("--folders", type=int, default=1000, help="(%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    arguments = parser.parse_args(argv)
    if not arguments.files >= arguments.folders >= 1:
        raise MillError("--folders must be at least 1, and --files at least as many")
    return arguments


if __name__ == "__main__":
    run_command(main)
