"""How tasks get into SLURM's queue, and what is noted beside their logs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.cluster.slurm.script import Executor


def submit(made: Executor, tasks: Sequence[Callable[[], None]]) -> list[str]:
    """The jobs' numbers; several tasks are one array."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from patchmill.cluster.slurm import commands

    try:
        with commands.clean_environment():
            if len(tasks) == 1:
                return [made.submit(tasks[0]).job_id]
            with made.batch():
                queued = [made.submit(task) for task in tasks]
            return [job.job_id for job in queued]
    except (FailedJobError, FailedSubmissionError) as error:
        raise MillError(f"SLURM refuses this job: {commands.sentence(str(error))}") from None


def describe(folder: Path, words: Sequence[str]) -> str:
    """The code, and what else somebody may ask of a job later; the commit."""
    from patchmill.cluster.job import snapshot
    from patchmill.cluster.slurm import script

    commit = snapshot.take(folder / script.SNAPSHOT)
    (folder / "command.txt").write_text(f"python cluster/submit.py {shlex.join(words)}\n")
    if patch := snapshot.changes():
        (folder / "changes.patch").write_text(patch)
    return commit
