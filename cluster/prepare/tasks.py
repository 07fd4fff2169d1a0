"""The tasks of a preparation: prepare one rank's share, or merge all shares at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from patchmill.cluster.slurm import commands
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.prepare import command
from patchmill.training.runtime import run_folder

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class ShareTask:
    """Callable that submitit pickles; `arguments` are those of loaders/prepare/command.py."""

    arguments: Sequence[str]
    folder: str  # working directory of the submission: relative paths start there
    requeue: bool

    def __call__(self) -> None:
        os.chdir(self.folder)
        with _handlers(self._exit), _one_line_errors():
            command.main(self.arguments)

    def _exit(self, number: int, frame: FrameType | None) -> None:
        """Exit immediately: finished segments are on disk, and nothing else needs saving.

        An exception would be lost if the signal arrived inside a callback of compiled code.
        """
        signal.signal(number, signal.SIG_IGN)
        job = os.environ.get("SLURM_JOB_ID")
        if job and self.requeue:
            commands.requeue_if_due(job, number)
        sys.stdout.flush()
        os._exit(run_folder.STOPPED)


@dataclass(frozen=True)
class MergeTask:
    """Merge the shares if the last of their tasks has not done so; report missing ones."""

    arguments: Sequence[str]  # of the first share, which is complete by now
    folder: str
    status_folder: str  # its status.json records how this ended

    def __call__(self) -> None:
        os.chdir(self.folder)
        status = run_folder.Status(Path(self.status_folder))
        try:
            with _one_line_errors():
                _check_complete(command.remaining(self.arguments))
                command.main(self.arguments)
        except SystemExit:
            status.end("failed")
            raise
        status.end("done")


def _check_complete(work: command.RemainingWork) -> None:
    if ranks := work.unfinished_ranks:
        raise MillError(
            f"{len(ranks)} of {work.world_size} shares of {work.out} are not complete "
            f"({', '.join(map(str, ranks[:20]))}): see the logs of their tasks; the same command "
            "queues them again"
        )


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except MillError as error:
        print(f"error: {error} (on {socket.gethostname()})", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Replace submitit's signal handlers, which requeue regardless of why the signal was sent."""
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
