"""Prepare data or masks as an array of SLURM tasks, or one share after another on this machine.

    patchmill submit prepare SRC OUT --tasks 32
    patchmill submit masks DATA --method rbd --tasks 32

Each task prepares one rank's share of the images. The last one to finish merges the shares; a
dependent job does so if that task was killed, and reports missing shares. The same command again
continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from patchmill.cluster import options, resources
from patchmill.cluster.job import record
from patchmill.cluster.job.record import Job
from patchmill.cluster.prepare.tasks import MergeTask, ShareTask
from patchmill.cluster.resources import Resources
from patchmill.cluster.slurm import commands, queue, script
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.prepare import command
from patchmill.loaders.prepare.command import RemainingWork
from patchmill.training.runtime import run_folder

DEFAULT_TASKS = 32  # on SLURM
# Preparation saves as it goes: a signal one minute before the time limit is enough.
DEFAULTS = {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": 0, "signal_delay": 60}
RANK_OPTIONS = ("--rank", "--world-size")


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A checked preparation and its remaining work."""

    command: str  # prepare or masks
    arguments: tuple[str, ...]  # of loaders/prepare/command.py, without the rank
    work: RemainingWork

    @property
    def ranks(self) -> list[int]:
        """Ranks whose shares are not complete."""
        return self.work.unfinished_ranks or []

    @property
    def jobs_folder(self) -> Path:
        return self.work.out.with_name(f"{self.work.out.name}.jobs")

    @property
    def job_name(self) -> str:
        return f"{self.command}-{self.work.out.name}"

    def arguments_of(self, rank: int) -> tuple[str, ...]:
        return (*self.arguments, "--rank", str(rank))

    def __str__(self) -> str:
        tasks, done = self.work.world_size, self.work.world_size - len(self.ranks)
        shares = f"{tasks} of {-(-self.work.images // tasks):,} images at most"
        rows = [
            (self.command, f"{self.work.images:,} images of {self.work.name}"),
            ("to", str(self.work.out)),
            ("tasks", shares + (f"; {done} done, {len(self.ranks)} left" if done else "")),
        ]
        return "\n".join(f"{name:<16} {text}" for name, text in rows)


def main(arguments: Sequence[str]) -> None:
    args, shared = options.read_preparation(arguments)
    options.refuse_without_effect(args, arguments)
    needs = resources.load(DEFAULTS | options.resource_options(args), args.cluster)
    here = args.local or not (commands.is_available() or args.dry_run)
    preparation = _preparation(args, shared, needs, here)
    out = preparation.work.out
    if preparation.work.unfinished_ranks is None:
        print(f"{out} is complete already: nothing to do")
        return
    _check_writable(out)
    _check_no_job(preparation)
    print(preparation)
    if args.dry_run:
        _show(preparation, needs, args.local)
    elif here:
        for rank in preparation.ranks or [0]:
            command.main(preparation.arguments_of(rank))
    else:
        _queue(preparation, needs, arguments, args.follow)


def _preparation(
    args: argparse.Namespace, arguments: Sequence[str], needs: Resources, here: bool
) -> Preparation:
    """Check the command as each task will, so that mistakes are found before anything is queued."""
    if any(word.partition("=")[0] in RANK_OPTIONS for word in arguments):
        raise MillError("--tasks sets how many share the work: omit --rank and --world-size")
    if "--overwrite" in arguments:
        raise MillError("--overwrite would remove what other tasks write: remove it yourself")
    tasks = args.tasks or (1 if here else DEFAULT_TASKS)
    shared = [
        *(["masks"] if args.command == "masks" else []),
        *arguments,
        "--world-size",
        str(tasks),
    ]
    if not here and not any(word.partition("=")[0] == "--workers" for word in arguments):
        shared += ["--workers", str(needs.cpus_per_task)]
    try:
        work = command.remaining([*shared, "--rank", "0"])
    except MillError as error:
        raise MillError(str(error).replace("--world-size", "--tasks")) from None
    if tasks > work.images:
        raise MillError(f"--tasks {tasks} are more than the {work.images} images of {work.name}")
    work = work._replace(out=work.out.resolve())
    if args.command == "masks":  # otherwise each task would choose its own output
        shared += ["--out", str(work.out)]
    return Preparation(args.command, tuple(shared), work)


def _check_writable(out: Path) -> None:
    existing = next(path for path in (out, *out.parents) if path.exists())
    if existing.is_dir() and not os.access(existing, os.W_OK | os.X_OK):
        raise MillError(f"no permission to write to {existing}: choose another output than {out}")


def _check_no_job(preparation: Preparation) -> None:
    folder = preparation.jobs_folder
    job = record.read(folder)
    if job and (state := record.state(job)):
        raise MillError(
            f"job {job.id} makes {preparation.work.out} already ({state}): wait for it, or cancel "
            f"it with patchmill status --cancel {folder}"
        )


# ------------------------------------------------------------------------------------ show or queue


def _show(preparation: Preparation, needs: Resources, local: bool) -> None:
    if local:
        print("\nwould run here, without SLURM")
        return
    text = _script(preparation, needs)
    print(f"\n{text}\nthen, after all tasks: a job that merges their shares")
    if commands.is_available():
        print(f"sbatch: {commands.check_script(text)}")


def _script(preparation: Preparation, needs: Resources) -> str:
    folder = record.next_folder(preparation.jobs_folder)
    slurm = script.executor(needs, folder, preparation.job_name)
    return script.text(slurm, max(len(preparation.ranks), 1))


def _queue(
    preparation: Preparation, needs: Resources, arguments: Sequence[str], follow_logs: bool
) -> None:
    commands.check_script(_script(preparation, needs))
    jobs_folder = preparation.jobs_folder
    with record.new_folder(jobs_folder) as folder:
        commit = queue.save_code(folder, arguments)
        jobs = _submit(preparation, needs, folder, commit)
    record.write(jobs_folder, jobs[0])
    run_folder.Status(jobs_folder)
    if preparation.ranks:
        print(f"{'job':<16} {jobs[0].id}, queued: {len(preparation.ranks)} tasks")
    print(f"{'then job':<16} {jobs[-1].id}, which merges their shares")
    print(f"{'logs':<16} {folder}")
    if follow_logs:
        _follow(jobs)
    else:
        print(f"{'to watch':<16} patchmill status --tail {jobs_folder}")
        print(f"{'to cancel':<16} patchmill status --cancel {jobs_folder}")


def _submit(preparation: Preparation, needs: Resources, folder: Path, commit: str) -> list[Job]:
    """Submit the array, if any share is missing, and the job that depends on it."""
    cwd, name, ids = str(Path.cwd()), preparation.job_name, []
    ranks = preparation.ranks
    if ranks:
        tasks = [ShareTask(preparation.arguments_of(rank), cwd, needs.requeue) for rank in ranks]
        slurm = script.executor(needs, folder, name)
        ids.append(queue.submit(slurm, tasks)[0].partition("_")[0])
        needs = dataclasses.replace(needs, dependency=f"afterany:{ids[0]}")
    merge = MergeTask(preparation.arguments_of(0), cwd, str(preparation.jobs_folder))
    slurm = script.executor(needs, folder, f"{name}-merge")
    ids += queue.submit(slurm, [merge])
    return [record.new(id, folder, False, commit) for id in ids]


def _follow(jobs: Sequence[Job]) -> None:
    from patchmill.cluster.job import follow

    for job in jobs:
        follow.follow(job, lambda: bool(record.state(job)))  # noqa: B023
