"""Submit tasks to SLURM's queue, and save code and command next to their logs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.cluster.slurm.script import Executor


def submit(executor: Executor, tasks: Sequence[Callable[[], None]]) -> list[str]:
    """Queue the tasks, as one array if there are several; return their job ids."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from patchmill.cluster.slurm import commands

    try:
        with commands.clean_environment():
            if len(tasks) == 1:
                return [executor.submit(tasks[0]).job_id]
            with executor.batch():
                queued = [executor.submit(task) for task in tasks]
            return [job.job_id for job in queued]
    except (FailedJobError, FailedSubmissionError) as error:
        raise MillError(f"SLURM refuses this job: {commands.message(str(error))}") from None


def save_code(folder: Path, argv: Sequence[str]) -> str:
    """Save the code, the command and uncommitted changes to a job's folder; return the commit."""
    from patchmill.cluster.job import snapshot
    from patchmill.cluster.slurm import script

    commit = snapshot.take(folder / script.SNAPSHOT)
    (folder / "command.txt").write_text(f"patchmill submit {shlex.join(argv)}\n")
    if patch := snapshot.changes():
        (folder / "changes.patch").write_text(patch)
    return commit
