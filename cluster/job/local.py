"""The same job on this machine, by submitit's local executor."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

import submitit

from patchmill.cluster.job import follow
from patchmill.cluster.job import record as jobs
from patchmill.cluster.job.merged_log import Merging
from patchmill.cluster.job.process import CACHES, Training
from patchmill.cluster.job.record import Job
from patchmill.cluster.slurm import script
from patchmill.training.runtime import run_folder

NO_LIMIT = 60 * 24 * 365  # minutes


class Started:
    """A job whose processes are this one's children."""

    def __init__(self, task: Training, folder: Path, tasks: int, gpus: int) -> None:
        made = submitit.LocalExecutor(folder, python=script.python(folder))
        made.update_parameters(
            timeout_min=NO_LIMIT,
            signal_delay_s=0,
            tasks_per_node=tasks,
            gpus_per_node=gpus,
            visible_gpus=_visible(gpus),
            stderr_to_stdout=True,
        )
        # Children begin with this: training takes Ctrl-C as soon as it can save.
        with _handled({signal.SIGINT: signal.SIG_IGN}), _environment(folder):
            self._job = made.submit(task)
        self.id = self._job.job_id

    def wait(self, record: Job, run: Path) -> int:
        """Prints what it logs; the exit code. Signals are passed on."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        with _handled(dict.fromkeys(numbers, self._pass_on)):
            merging = Merging(Path(record.logs), self.id)
            lines = follow.Lines()
            follow.until(record, self._lives, follow.LOOK, lines, merging.look)
            code = self._code(run)
            merging.end(code)
            follow.show(record, lines)
        return code

    def _lives(self) -> bool:
        return not self._job.done()

    def _code(self, run: Path) -> int:
        if all(it.paths.result_pickle.exists() for it in self._job._sub_jobs or [self._job]):
            return 0
        return run_folder.STOPPED if run_folder.read(run).get("state") == "stopped" else 1

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # over by now
            os.kill(int(self.id), signal.SIGTERM)


def start(task: Training, folder: Path, tasks: int, gpus: int, commit: str) -> tuple[Started, Job]:
    started = Started(task, folder, tasks, gpus)
    return started, jobs.now(started.id, folder, True, commit)


def _visible(gpus: int) -> tuple[int, ...]:
    """Those that the user named, if so: submitit would take the first ones instead."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return tuple(map(int, named[:gpus])) if all(it.isdigit() for it in named) else ()


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[None]:
    before = dict(os.environ)
    usual = {k: text for k, text in script.ENVIRONMENT.items() if "$" not in text and k != CACHES}
    os.environ.update(usual | before)
    os.environ["PYTHONPATH"] = str(folder / script.SNAPSHOT)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _handled(handlers: Mapping[int, object]) -> Iterator[None]:
    before = {number: signal.signal(number, it) for number, it in handlers.items()}  # type: ignore
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
