"""Run a job on this machine, through submitit's local executor."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

import submitit

from patchmill.cluster.job import follow, record
from patchmill.cluster.job.merged_log import LogMerger
from patchmill.cluster.job.process import TrainingTask
from patchmill.cluster.job.record import Job
from patchmill.cluster.slurm import script
from patchmill.training.runtime import run_folder

NO_LIMIT = 60 * 24 * 365  # minutes


class LocalJob:
    """A job whose ranks are child processes of this one."""

    def __init__(self, task: TrainingTask, folder: Path, tasks: int, gpus: int) -> None:
        executor = submitit.LocalExecutor(folder, python=script.python_command(folder))
        executor.update_parameters(
            timeout_min=NO_LIMIT,
            signal_delay_s=0,
            tasks_per_node=tasks,
            gpus_per_node=gpus,
            visible_gpus=_visible_gpus(gpus),
            stderr_to_stdout=True,
        )
        # Children inherit the ignored SIGINT, until training installs its own handler.
        with _handlers({signal.SIGINT: signal.SIG_IGN}), _job_environment(folder):
            self._job = executor.submit(task)
        self.id = self._job.job_id

    def wait(self, job: Job, run: Path) -> int:
        """Print the logs and forward signals until the job ends; return the exit code."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        with _handlers(dict.fromkeys(numbers, self._forward)):
            merger = LogMerger(Path(job.logs), self.id)
            reader = follow.LogReader()
            follow.follow(job, self._is_alive, follow.READ_EVERY, reader, merger.update)
            code = self._exit_code(run)
            merger.finish(code)
            follow.print_new(job, reader)
        return code

    def _is_alive(self) -> bool:
        return not self._job.done()

    def _exit_code(self, run: Path) -> int:
        ranks = self._job._sub_jobs or [self._job]
        if all(rank.paths.result_pickle.exists() for rank in ranks):
            return 0
        return run_folder.STOPPED if run_folder.read_status(run).get("state") == "stopped" else 1

    def _forward(self, number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # the job has just ended
            os.kill(int(self.id), signal.SIGTERM)


def start(
    task: TrainingTask, folder: Path, tasks: int, gpus: int, commit: str
) -> tuple[LocalJob, Job]:
    started = LocalJob(task, folder, tasks, gpus)
    return started, record.new(started.id, folder, True, commit)


def _visible_gpus(gpus: int) -> tuple[int, ...]:
    """The first GPUs of CUDA_VISIBLE_DEVICES if it is set: submitit would use GPUs from 0 on."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return tuple(map(int, names[:gpus])) if all(name.isdigit() for name in names) else ()


@contextlib.contextmanager
def _job_environment(folder: Path) -> Iterator[None]:
    before = dict(os.environ)
    defaults = {k: text for k, text in script.ENVIRONMENT.items() if "$" not in text}
    os.environ.update(defaults | before)
    others = before.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(folder / script.SNAPSHOT), others])
    )
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _handlers(handlers: Mapping[int, object]) -> Iterator[None]:
    before = {number: signal.signal(number, new) for number, new in handlers.items()}  # type: ignore
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
