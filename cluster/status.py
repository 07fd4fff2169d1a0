"""Show the state of runs: patchmill status [DIR ...]; --tail RUN, --cancel RUN"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchmill.loaders.common.arguments import Parser, refuse_options
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.printed import say

COLUMNS: tuple[str, ...] = ("run", "state", "job", "epoch", "images/s", "left", "loss", "restarts")
DEAD_AFTER = 1800  # seconds without a heartbeat, for a run outside a job
TAIL = 40  # lines of a log


def main(arguments: Sequence[str] | None = None) -> None:
    from patchmill.cluster.slurm import commands

    argv = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(argv)
    if args.tail:
        refuse_options(argv, ["--cancel", "--best", "--json"], "does not go with --tail")
        _tail(args.tail, args.follow)
        return
    refuse_options(argv, ["--follow"], "is for a log: add --tail RUN")
    if args.cancel:
        refuse_options(argv, ["--best", "--json"], "is for the table of runs, not for --cancel")
        _cancel(args.cancel)
        return
    runs = find_runs(args.folders)
    queue = commands.states() if commands.is_available() else {}
    columns, rows = COLUMNS, [run_row(run, queue) for run in runs]
    if args.best:
        columns, rows = with_best(args.best, runs, rows)
    if args.json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1))
    else:
        say("\n".join(table([columns, *rows])))


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The runs in these folders, sweeps included."""
    runs: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise MillError(f"there is no folder {folder}: name one that holds runs")
        for pattern in (".", "*", "*/*"):
            files = [*folder.glob(f"{pattern}/status.json"), *folder.glob(f"{pattern}/job.json")]
            runs |= dict.fromkeys(sorted(file.parent for file in files))
    return list(runs)


def run_row(run: Path, queue: Mapping[str, str]) -> tuple[str, ...]:
    """One row of the table; `queue` comes from `commands.states`."""
    from patchmill.cluster.job import record
    from patchmill.training.runtime import run_folder

    status, job = run_folder.read_status(run), record.read(run)
    if job and job.local:
        job_state = record.state(job)
    else:
        job_state = record.queue_state(job, queue) if job else ""
    running = job_state == "RUNNING"
    return (
        str(run),
        _state(status, job_state, bool(job)),
        job.id if job else "",
        f"{status['epoch']:.1f}" if "epoch" in status else "",
        f"{status['images_per_s']:,.0f}" if running and "images_per_s" in status else "",
        _duration(status["eta_s"]) if running and "eta_s" in status else "",
        f"{status['loss']:.4g}" if "loss" in status else "",
        str(status.get("restarts", "")),
    )


def with_best(
    name: str, runs: Sequence[Path], rows: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns and rows with each run's highest result of that name, the best run first.

    Runs without one come last. MillError if no run has one.
    """
    from patchmill.training.runtime import records

    evaluations = [records.evaluations(run) for run in runs]
    best = {
        row: max((float(e[name]), e.get("epoch", 0)) for e in results if _is_number(e.get(name)))
        for row, results in zip(rows, evaluations, strict=True)
        if any(_is_number(e.get(name)) for e in results)
    }
    if rows and not best:
        measured = {key for results in evaluations for e in results for key in e}
        names = sorted(measured - {"step", "epoch", "time"})
        known = f": there are {', '.join(names)}" if names else ""
        raise MillError(f"no run has been evaluated by {name}{known}")
    ordered = sorted(rows, key=lambda row: best[row][0] if row in best else -math.inf, reverse=True)
    texts = [(f"{best[r][0]:.4g}", f"{best[r][1]:.4g}") if r in best else ("", "") for r in ordered]
    columns = (*COLUMNS, f"best {name}", "at epoch")
    return columns, [(*row, *text) for row, text in zip(ordered, texts, strict=True)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _state(status: Mapping[str, Any], job_state: str, is_job: bool) -> str:
    """Combine the run's own status with its job's state in the queue."""
    run_state = status.get("state", "")
    if job_state == "RUNNING":
        return "running" if run_state == "running" else "starting"
    if job_state:
        return job_state.lower()
    if run_state == "running" and (is_job or time.time() - status.get("time", 0) > DEAD_AFTER):
        return "killed"
    return run_state or "killed"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes} min"


def _tail(run: Path, follow_log: bool) -> None:
    """Print the failure first, if there is one, then the end of the log."""
    from patchmill.cluster.job import failures, follow, record

    job, reader = record.last_job(run), follow.LogReader()
    state = record.state(job)
    if not state and (failure := failures.describe(job)):
        say("\n".join([*failure, ""]))
    if not job.merged_logs():
        print(f"job {job.id} has logged nothing yet: {state}" if state else "there is no log")
    follow.print_new(job, reader, TAIL)
    if follow_log:
        follow.follow(job, lambda: bool(record.state(job)), reader=reader)


def _cancel(run: Path) -> None:
    from patchmill.cluster.job import record
    from patchmill.cluster.slurm import commands

    job = record.last_job(run)
    if not record.state(job):
        raise MillError(f"job {job.id} has ended already")
    if job.local:
        record.stop(job)
    else:
        commands.cancel(job.id)
    print(f"job {job.id} was told to stop")


def parser() -> Parser:
    options = Parser(
        "patchmill status",
        "[DIR ...]",
        "Show the state of runs, read their logs, or stop them.",
        ["patchmill status", "patchmill status --tail runs/dilo-scenes-demo --follow"],
    )
    options.add_argument(
        "folders",
        nargs="*",
        type=Path,
        default=[Path("runs")],
        metavar="DIR",
        help="a folder of runs, or a run (default: runs)",
    )
    options.add_argument("--cancel", type=Path, metavar="RUN", help="save a checkpoint and stop")
    options.add_argument("--tail", type=Path, metavar="RUN", help="print the end of the run's log")
    options.add_argument("--follow", action="store_true", help="with --tail: until the job ends")
    options.add_argument("--best", metavar="NAME", help="sort by best knn or linear_online")
    options.add_argument("--json", action="store_true", help="print the table as JSON")
    return options


if __name__ == "__main__":
    run_command(main)
