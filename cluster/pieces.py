"""What each task of a preparation does: a piece of it, or what is left at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from patchmill.loaders import prepare
from patchmill.loaders.errors import MillError
from patchmill.training import runs

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
STOPPED = 75  # the exit code, as of training


class Ended(SystemExit):
    """By a signal. What was made until then is kept: nothing has to be saved."""

    def __init__(self, number: int) -> None:
        super().__init__(STOPPED)
        self.number = number


@dataclass(frozen=True)
class Piece:
    """submitit pickles this, and calls it; `words` are those of loaders/prepare.py."""

    words: Sequence[str]
    folder: str  # which the user's relative paths start from
    requeue: bool

    def __call__(self) -> None:
        os.chdir(self.folder)
        with _signals():
            try:
                with _sentences():
                    prepare.main(self.words)
            except Ended as ended:
                self._leave(ended)
                raise

    def _leave(self, ended: Ended) -> None:
        from patchmill.cluster import slurm
        from patchmill.cluster.job import is_due

        job = os.environ.get("SLURM_JOB_ID")
        if job and self.requeue and is_due(ended.number, slurm.shown(job)):
            refused = slurm.requeue(job)
            print(f"SLURM does not requeue job {job}: {refused}" if refused else "queued again")


@dataclass(frozen=True)
class Ending:
    """Puts the pieces together, where the last of them has not done so; says which are missing."""

    words: Sequence[str]  # of the first piece, which leave nothing to make
    folder: str
    jobs: str  # the folder whose status is to say how it ended

    def __call__(self) -> None:
        os.chdir(self.folder)
        status = runs.Status(Path(self.jobs))
        try:
            with _sentences():
                _check_whole(prepare.left(self.words))
                prepare.main(self.words)
        except SystemExit:
            status.end("failed")
            raise
        status.end("done")


def _check_whole(left: prepare.Left) -> None:
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
def _signals() -> Iterator[None]:
    """In place of submitit's own, which requeues for whatever reason it was sent one."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise Ended(number)

    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
