"""How runs are doing: python cluster/status.py [DIR ...]; --tail RUN, --cancel RUN

DIR is a folder of runs (default: runs) or a run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError, run_command

HEADS = ("run", "state", "job", "epoch", "images/s", "left", "loss", "restarts")
SILENT = 1800  # seconds without a heartbeat after which a run that nobody queued counts as dead
LAST = 40  # lines of a log


def main(arguments: Sequence[str] | None = None) -> None:
    from patchmill.cluster.slurm import commands

    given = _parser().parse_args(arguments)
    if given.tail:
        _tail(given.tail, given.follow)
        return
    if given.cancel:
        _cancel(_job(given.cancel))
        return
    found = find(given.folders)
    queue = commands.states() if commands.is_there() else {}
    rows = [row(run, queue) for run in found]
    if given.json:
        print(json.dumps([dict(zip(HEADS, it, strict=True)) for it in rows], indent=1))
    else:
        print("\n".join(table([HEADS, *rows])))


def find(folders: Sequence[Path]) -> list[Path]:
    """The runs in them, and in the sweeps in them."""
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise MillError(f"there is no folder {folder}: name one that holds runs")
        for pattern in (".", "*", "*/*"):
            marks = [*folder.glob(f"{pattern}/status.json"), *folder.glob(f"{pattern}/job.json")]
            found |= dict.fromkeys(sorted(it.parent for it in marks))
    return list(found)


def row(run: Path, queue: Mapping[str, str]) -> tuple[str, ...]:
    from patchmill.cluster.job import record
    from patchmill.training.runtime import run_folder

    status, job = run_folder.read(run), record.read(run)
    if job and job.local:
        asked = record.state(job)
    else:
        asked = record.queued(job, queue) if job else ""
    alive = asked == "RUNNING"
    return (
        str(run),
        _state(status, asked, bool(job)),
        job.id if job else "",
        f"{status['epoch']:.1f}" if "epoch" in status else "",
        f"{status['images_per_s']:,.0f}" if alive and "images_per_s" in status else "",
        _left(status["eta_s"]) if alive and "eta_s" in status else "",
        f"{status['loss']:.4g}" if "loss" in status else "",
        str(status.get("restarts", "")),
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, it, widths)).rstrip() for it in rows)
    return list(lines)


def _state(status: Mapping[str, Any], asked: str, known: bool) -> str:
    """Of a run whose status says one thing, and the queue another."""
    said = status.get("state", "")
    if asked == "RUNNING":
        return "running" if said == "running" else "starting"
    if asked:
        return asked.lower()
    if said == "running" and (known or time.time() - status["time"] > SILENT):
        return "killed"
    return said or "killed"


def _left(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes} min"


def _tail(run: Path, goes_on: bool) -> None:
    """What failed comes first, if something did."""
    from patchmill.cluster.job import failures, follow, record

    job, lines = _job(run), follow.Lines()
    now = record.state(job)
    if not now and (told := failures.told(job)):
        print(*told, sep="\n", end="\n\n")
    if not job.merged():
        print(f"job {job.id} has written nothing yet: it is {now}" if now else "there is no log")
    follow.show(job, lines, LAST)
    if goes_on:
        follow.until(job, lambda: bool(record.state(job)), lines=lines)


def _job(run: Path) -> Any:
    from patchmill.cluster.job import record

    if job := record.read(run):
        return job
    raise MillError(f"{run} was not given to a job: cluster/submit.py makes runs that are")


def _cancel(job: Any) -> None:
    from patchmill.cluster.job import record
    from patchmill.cluster.slurm import commands

    if not record.state(job):
        raise MillError(f"job {job.id} is over already")
    if job.local:
        record.end(job)
    else:
        commands.cancel(job.id)
    print(f"job {job.id} was told to end")


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python cluster/status.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("folders", nargs="*", type=Path, default=[Path("runs")], metavar="DIR")
    made.add_argument("--cancel", type=Path, metavar="RUN", help="save a checkpoint, and end")
    made.add_argument("--tail", type=Path, metavar="RUN", help="the end of its log")
    made.add_argument("--follow", action="store_true", help="with --tail: go on until it ends")
    made.add_argument("--json", action="store_true", help="the table, for programs")
    return made


if __name__ == "__main__":
    here = Path(__file__).parent.resolve()
    if sys.path and Path(sys.path[0]).resolve() == here:
        del sys.path[0]  # a script's folder comes first, and its names are not meant to be modules
    run_command(main)
