"""What each task of a preparation does: a piece of it, or what is left at the end."""

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
class Piece:
    """submitit pickles this, and calls it; `words` are those of loaders/prepare/command.py."""

    words: Sequence[str]
    folder: str  # which the user's relative paths start from
    requeue: bool

    def __call__(self) -> None:
        os.chdir(self.folder)
        with _signals(self._end), _sentences():
            command.main(self.words)

    def _end(self, number: int, frame: FrameType | None) -> None:
        """At once: what was made is kept, and nothing has to be saved.

        An exception would be lost where the signal meets a callback of compiled code.
        """
        signal.signal(number, signal.SIG_IGN)
        job = os.environ.get("SLURM_JOB_ID")
        if job and self.requeue and commands.is_due(number, commands.shown(job)):
            refused = commands.requeue(job)
            print(f"SLURM does not requeue job {job}: {refused}" if refused else "queued again")
        sys.stdout.flush()
        os._exit(run_folder.STOPPED)


@dataclass(frozen=True)
class Ending:
    """Puts the pieces together, where the last of them has not done so; says which are missing."""

    words: Sequence[str]  # of the first piece, which leave nothing to make
    folder: str
    jobs: str  # the folder whose status is to say how it ended

    def __call__(self) -> None:
        os.chdir(self.folder)
        status = run_folder.Status(Path(self.jobs))
        try:
            with _sentences():
                _check_whole(command.left(self.words))
                command.main(self.words)
        except SystemExit:
            status.end("failed")
            raise
        status.end("done")


def _check_whole(left: command.Left) -> None:
    if left.pieces:
        raise MillError(
            f"{len(left.pieces)} of {left.tasks} pieces of {left.out} are not complete "
            f"({', '.join(map(str, left.pieces[:20]))}): see the logs of their tasks; the same "
            "command as before queues them again"
        )


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except MillError as error:
        print(f"error: {error} (on {socket.gethostname()})", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """In place of submitit's own, which requeues for whatever reason it was sent one."""
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
