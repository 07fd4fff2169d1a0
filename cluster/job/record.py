"""What a run's folder knows of its jobs: job.json, and a folder of logs and code for each."""

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
from patchmill.loaders.common.files import write_atomic
from patchmill.training.runtime import run_folder

FOLDER, FILE = "jobs", "job.json"


class Job(NamedTuple):
    """The last one that a run was given to."""

    id: str  # SLURM's, or the number of a process
    local: bool
    logs: str  # the folder that its logs are in
    commit: str
    submitted: float

    def merged(self) -> list[Path]:
        """What all ranks log, as one; of a whole array, one for each of its tasks that began."""
        if (path := merged(Path(self.logs), self.id)).exists():
            return [path]
        found = Path(self.logs).glob(merged(Path(), f"{self.id}_*").name)
        return sorted(found, key=lambda it: int(it.stem.rpartition("_")[2]))

    def paths(self) -> list[Path]:
        """A log for each rank, rank 0 first."""
        found = Path(self.logs).glob(f"{self.id}_*_log.out")
        return sorted(found, key=lambda it: list(map(int, it.name.split("_")[1:-1])))


def merged(folder: Path, id: str) -> Path:
    return folder / f"log-{id}.out"


def rank(path: Path) -> int:
    """Whose log it is."""
    return int(path.name.split("_")[-2])


def read(run: Path) -> Job | None:
    try:
        return Job(**json.loads((run / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write(run: Path, job: Job) -> None:
    write_atomic(run / FILE, json.dumps(job._asdict(), indent=1) + "\n", durable=True)


def state(job: Job) -> str:
    """As SLURM says it; empty if it is over."""
    if job.local:
        return "RUNNING" if _lives(int(job.id)) else ""
    return queued(job, commands.states([job.id])) if commands.is_there() else ""


def queued(job: Job, states: Mapping[str, str]) -> str:
    """What SLURM says of it; of an array, what it says of a task that runs, or else of another."""
    found = [text for id, text in states.items() if id == job.id or id.startswith(f"{job.id}_")]
    return next((text for text in found if text == "RUNNING"), (found or [""])[0])


def end(job: Job) -> None:
    """Of a local job: it saves, and ends."""
    os.kill(int(job.id), signal.SIGTERM)


def check_free(run: Path) -> None:
    """A MillError while a job for this run is queued or running."""
    job = read(run)
    if job and (now := state(job)):
        raise MillError(
            f"job {job.id} trains into {run} already ({now}): wait for it, cancel it with python "
            f"cluster/status.py --cancel {run}, or choose another --name"
        )


def next_folder(run: Path) -> Path:
    """For a job's code and logs; it is not there yet."""
    numbers = [int(it.name) for it in (run / FOLDER).glob("[0-9]*") if it.name.isdigit()]
    return run / FOLDER / f"{max(numbers, default=0) + 1:03d}"


@contextlib.contextmanager
def begun(run: Path) -> Iterator[Path]:
    """The folder for a new job, made and held; what fails in here leaves nothing of it."""
    remains = next((it for it in [*reversed(run.parents), run] if not it.exists()), None)
    try:
        with run_folder.alone(run):
            check_free(run)  # again: another may have been faster
            made = next_folder(run)
            remains = remains or made
            with _readable(run):
                made.mkdir(parents=True)
            yield made
    except BaseException:
        if remains:
            shutil.rmtree(remains, ignore_errors=True)
        raise


def now(id: str, folder: Path, local: bool, commit: str) -> Job:
    return Job(id, local, str(folder), commit, time.time())


@contextlib.contextmanager
def _readable(run: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MillError(
            f"cannot write the run's folder {run}: {error.strerror}; choose another, as --dir DIR"
        ) from None


def _lives(process: int) -> bool:
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
