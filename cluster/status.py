"""Show the state of runs: patchmill status [DIR ...]; --tail RUN, --cancel RUN"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchmill.loaders.common.arguments import Parser
from patchmill.loaders.common.errors import MillError, run_command

COLUMNS = ("run", "state", "job", "epoch", "images/s", "left", "loss", "restarts")
DEAD_AFTER = 1800  # seconds without a heartbeat, for a run that is no job
TAIL = 40  # lines of a log


def main(arguments: Sequence[str] | None = None) -> None:
    from patchmill.cluster.slurm import commands

    args = parser().parse_args(arguments)
    if args.tail:
        _tail(args.tail, args.follow)
        return
    if args.cancel:
        _cancel(_job(args.cancel))
        return
    runs = find_runs(args.folders)
    queue = commands.states() if commands.is_available() else {}
    rows = [run_row(run, queue) for run in runs]
    if args.json:
        print(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows], indent=1))
    else:
        print("\n".join(table([COLUMNS, *rows])))


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
    """One line of the table; `queue` is what `commands.states` lists."""
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
    if run_state == "running" and (is_job or time.time() - status["time"] > DEAD_AFTER):
        return "killed"
    return run_state or "killed"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes} min"


def _tail(run: Path, follow_log: bool) -> None:
    """Print the failure first, if there is one, then the end of the log."""
    from patchmill.cluster.job import failures, follow, record

    job, reader = _job(run), follow.LogReader()
    state = record.state(job)
    if not state and (failure := failures.describe(job)):
        print(*failure, sep="\n", end="\n\n")
    if not job.merged_logs():
        print(f"job {job.id} has logged nothing yet: {state}" if state else "there is no log")
    follow.print_new(job, reader, TAIL)
    if follow_log:
        follow.follow(job, lambda: bool(record.state(job)), reader=reader)


def _job(run: Path) -> Any:
    from patchmill.cluster.job import record

    if job := record.read(run):
        return job
    raise MillError(f"{run} was not given to a job: only cluster/submit.py makes such runs")


def _cancel(job: Any) -> None:
    from patchmill.cluster.job import record
    from patchmill.cluster.slurm import commands

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
    options.add_argument("--tail", type=Path, metavar="RUN", help="print the end of its log")
    options.add_argument("--follow", action="store_true", help="with --tail: until the job ends")
    options.add_argument("--json", action="store_true", help="print the table as JSON")
    return options


if __name__ == "__main__":
    run_command(main)
