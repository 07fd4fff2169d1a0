"""Data preparation and masks in pieces: an array of tasks on SLURM, or one after the other here.

    python cluster/submit.py prepare SRC OUT --tasks 32
    python cluster/submit.py masks DATA --method rbd --tasks 32

Each task makes a piece of the images. The last one to end puts them together; a task that waits for
all of them does so otherwise, and says what is missing. The same command again goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from patchmill.cluster import options, resources
from patchmill.cluster.job import record as jobs
from patchmill.cluster.job.record import Job
from patchmill.cluster.prepare.tasks import Ending, Piece
from patchmill.cluster.resources import Resources
from patchmill.cluster.slurm import commands, queue, script
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.prepare import command as prepare
from patchmill.loaders.prepare.command import Left
from patchmill.training.runtime import run_folder

TASKS = 32  # on SLURM, unless told otherwise
# Of a task, which has nothing to save before its time is over.
NEEDS = {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": 0, "signal_delay": 60}
OURS = ("--rank", "--world-size")


@dataclasses.dataclass(frozen=True)
class Work:
    command: str  # prepare or masks
    words: tuple[str, ...]  # what loaders/prepare/command.py is told, but for the rank
    left: Left

    @property
    def pieces(self) -> list[int]:
        return self.left.pieces or []

    @property
    def folder(self) -> Path:
        """Of its jobs: beside what they make."""
        return self.left.out.with_name(f"{self.left.out.name}.jobs")

    def of(self, rank: int) -> tuple[str, ...]:
        return (*self.words, "--rank", str(rank))

    def __str__(self) -> str:
        tasks, done = self.left.tasks, self.left.tasks - len(self.pieces)
        said = f"{tasks} of {-(-self.left.images // tasks):,} images at most"
        rows = [
            (self.command, f"{self.left.images:,} images of {self.left.name}"),
            ("to", str(self.left.out)),
            ("tasks", said + (f"; {done} done, {len(self.pieces)} left" if done else "")),
        ]
        return "\n".join(f"{name:<16} {text}" for name, text in rows)


def main(arguments: Sequence[str]) -> None:
    given, words = options.read_preparation(arguments)
    needs = resources.find(NEEDS | options.asked(given), given.cluster)
    here = given.local or not (commands.is_there() or given.dry_run)
    work = _work(given, words, needs, here)
    if work.left.pieces is None:
        print(f"{work.left.out} is complete already: nothing to do")
        return
    _check_writable(work.left.out)
    _check_idle(work)
    print(work)
    if given.dry_run:
        _show(work, needs, given.local)
    elif here:
        for rank in work.pieces or [0]:
            prepare.main(work.of(rank))
    else:
        _queue(work, needs, arguments, given.follow)


def _work(given: argparse.Namespace, words: Sequence[str], needs: Resources, here: bool) -> Work:
    """Checked as the tasks would, so that they need not find it."""
    if any(word.partition("=")[0] in OURS for word in words):
        raise MillError("--tasks says how many share the work: leave out --rank and --world-size")
    if "--overwrite" in words:
        raise MillError("--overwrite would remove what other tasks write: remove it yourself")
    tasks = given.tasks or (1 if here else TASKS)
    told = [*(["masks"] if given.command == "masks" else []), *words, "--world-size", str(tasks)]
    if not here and not any(word.partition("=")[0] == "--workers" for word in words):
        told += ["--workers", str(needs.cpus_per_task)]
    try:
        left = prepare.left([*told, "--rank", "0"])
    except MillError as error:
        raise MillError(str(error).replace("--world-size", "--tasks")) from None
    if tasks > left.images:
        raise MillError(f"--tasks {tasks} are more than the {left.images} images of {left.name}")
    if given.command == "masks":  # which tasks must not choose each for itself
        told += ["--out", str(left.out.resolve())]
    return Work(given.command, tuple(told), left._replace(out=left.out.resolve()))


def _check_writable(out: Path) -> None:
    place = next(it for it in (out, *out.parents) if it.exists())
    if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
        raise MillError(f"you may not write to {place}: choose another place than {out}")


def _check_idle(work: Work) -> None:
    job = jobs.read(work.folder)
    if job and (now := jobs.state(job)):
        raise MillError(
            f"job {job.id} makes {work.left.out} already ({now}): wait for it, or cancel it with "
            f"python cluster/status.py --cancel {work.folder}"
        )


# ------------------------------------------------------------------------------- what becomes of it


def _show(work: Work, needs: Resources, local: bool) -> None:
    if local:
        print("\nit would run here, without SLURM")
        return
    text = _script(work, needs)
    print(f"\n{text}\nthen, when all tasks have ended: a task that puts their pieces together")
    if commands.is_there():
        print(f"sbatch: {commands.try_script(text)}")


def _script(work: Work, needs: Resources) -> str:
    made = script.executor(needs, jobs.next_folder(work.folder), _name(work))
    return script.text(made, max(len(work.pieces), 1))


def _queue(work: Work, needs: Resources, words: Sequence[str], watched: bool) -> None:
    commands.try_script(_script(work, needs))
    with jobs.begun(work.folder) as folder:
        commit = queue.describe(folder, words)
        records = _submit(work, needs, folder, commit)
    jobs.write(work.folder, records[0])
    run_folder.Status(work.folder)
    if work.pieces:
        print(f"{'job':<16} {records[0].id}, queued: {len(work.pieces)} tasks")
    print(f"{'then job':<16} {records[-1].id}, which puts their pieces together")
    print(f"{'logs':<16} {folder}")
    if watched:
        _follow(records)
    else:
        print(f"{'to watch':<16} python cluster/status.py --tail {work.folder}")
        print(f"{'to cancel':<16} python cluster/status.py --cancel {work.folder}")


def _submit(work: Work, needs: Resources, folder: Path, commit: str) -> list[Job]:
    """The array, if anything is left to make, and the job that waits for it."""
    here, ids = str(Path.cwd()), []
    tasks = [Piece(work.of(rank), here, needs.requeue) for rank in work.pieces]
    if tasks:
        made = script.executor(needs, folder, _name(work))
        ids.append(queue.submit(made, tasks)[0].partition("_")[0])
        needs = dataclasses.replace(needs, dependency=f"afterany:{ids[0]}")
    made = script.executor(needs, folder, f"{_name(work)}-ending")
    ids += queue.submit(made, [Ending(work.of(0), here, str(work.folder))])
    return [jobs.now(id, folder, False, commit) for id in ids]


def _follow(records: Sequence[Job]) -> None:
    from patchmill.cluster.job import follow

    for record in records:
        follow.until(record, lambda: bool(jobs.state(record)))  # noqa: B023


def _name(work: Work) -> str:
    return f"{work.command}-{work.left.out.name}"
