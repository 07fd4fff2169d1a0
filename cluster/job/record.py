"""The record of a run's last job (job.json), and a folder per job for its logs and code."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from patchmill.cluster.slurm import commands
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import write_atomic
from patchmill.training.runtime import run_folder

FOLDER, FILE = "jobs", "job.json"


class Job(NamedTuple):
    """Contents of job.json: the last job submitted for a run."""

    id: str  # SLURM's job id, or a process id
    local: bool
    logs: str  # folder of its logs
    commit: str
    submitted: float

    def merged_logs(self) -> list[Path]:
        """The job's merged log; for an array, one per task that has started."""
        if (path := merged_log_path(Path(self.logs), self.id)).exists():
            return [path]
        paths = Path(self.logs).glob(merged_log_path(Path(), f"{self.id}_*").name)
        return sorted(paths, key=lambda path: int(path.stem.rpartition("_")[2]))

    def rank_logs(self) -> list[Path]:
        """One log per rank, rank 0 first."""
        paths = Path(self.logs).glob(f"{self.id}_*_log.out")
        return sorted(paths, key=lambda path: list(map(int, path.name.split("_")[1:-1])))


def new(id: str, folder: Path, local: bool, commit: str) -> Job:
    return Job(id, local, str(folder), commit, time.time())


def merged_log_path(folder: Path, id: str) -> Path:
    return folder / f"log-{id}.out"


def rank_of_log(path: Path) -> int:
    return int(path.name.split("_")[-2])


def read(run: Path) -> Job | None:
    try:
        return Job(**json.loads((run / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def last_job(run: Path) -> Job:
    """The run's last job; MillError if it has none."""
    if job := read(run):
        return job
    raise MillError(f"{run} does not belong to a job: only patchmill submit creates such runs")


def write(run: Path, job: Job) -> None:
    write_atomic(run / FILE, json.dumps(job._asdict(), indent=1) + "\n", durable=True)


def state(job: Job) -> str:
    """The job's state as SLURM names it, such as RUNNING; empty if it has ended."""
    if job.local:
        return "RUNNING" if _is_running(int(job.id)) else ""
    return queue_state(job, commands.states([job.id])) if commands.is_available() else ""


def queue_state(job: Job, states: Mapping[str, str]) -> str:
    """The job's state in a listing of the queue; for an array, RUNNING if any task is running."""
    matching = [text for id, text in states.items() if id == job.id or id.startswith(f"{job.id}_")]
    return next((text for text in matching if text == "RUNNING"), (matching or [""])[0])


def stop(job: Job) -> None:
    """Ask a local job to save a checkpoint and exit."""
    os.kill(int(job.id), signal.SIGTERM)


def check_free(run: Path) -> None:
    """Raise a MillError while a job for this run is queued or running."""
    job = read(run)
    if job and (current := state(job)):
        raise MillError(
            f"job {job.id} trains into {run} already ({current}): wait for it, cancel it with "
            f"patchmill status --cancel {run}, or choose another --name"
        )


def next_folder(run: Path) -> Path:
    """Folder for the next job's code and logs, not created yet."""
    folders = (run / FOLDER).glob("[0-9]*")
    numbers = [int(folder.name) for folder in folders if folder.name.isdigit()]
    return run / FOLDER / f"{max(numbers, default=0) + 1:03d}"


@contextlib.contextmanager
def new_folder(run: Path) -> Iterator[Path]:
    """Create a new job's folder and lock the run; remove everything created on an exception."""
    created = next((path for path in [*reversed(run.parents), run] if not path.exists()), None)
    try:
        with run_folder.lock(run):
            check_free(run)  # under the lock: another submission may have been faster
            folder = next_folder(run)
            created = created or folder
            with _folder_errors(run):
                folder.mkdir(parents=True)
            yield folder
    except BaseException:
        if created:
            shutil.rmtree(created, ignore_errors=True)
        raise


@contextlib.contextmanager
def _folder_errors(run: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MillError(
            f"cannot write the run's folder {run}: {error.strerror}; choose another with --dir DIR"
        ) from None


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False
