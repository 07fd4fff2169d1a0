"""Ending a run early without losing a step: signals set a flag, ranks agree, the engine saves.

Where SIGTERM, SIGINT (Ctrl-C), SIGUSR1 or SIGUSR2 asked for it, a run saves a checkpoint and its
process exits with STOPPED: the same command goes on from there. The same signal once more, a second
or more later, ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from patchmill.training.ranks import distributed
from patchmill.training.runtime.run_folder import STOPPED

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
SAME = 1.0  # seconds in which a signal counts once: terminals and torchrun both send Ctrl-C


class Stopped(SystemExit):
    """Ends a process that was asked to; `signal` says by what, and is the same on all ranks."""

    def __init__(self, signal: int) -> None:
        super().__init__(STOPPED)
        self.signal = signal


def leave(code: int = STOPPED) -> NoReturn:
    """End this process as it is, when all is saved.

    Threads that are in torch's code while the interpreter winds up abort the process at times, and
    its exit code, by which a job is queued again, would be another.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Signals:
    """While entered, signals do no more than to be noted.

    What came while an outer one was entered, and nobody looked yet, counts in an inner one too.
    """

    asked = 0  # the number of the signal that came first

    def __enter__(self) -> Signals:
        self._times: dict[int, float] = {}
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # others may not handle signals
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
            outer = getattr(self._before[SIGNALS[0]], "__self__", None)
            self.asked = outer.asked if isinstance(outer, Signals) else 0
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._times.setdefault(number, now) > SAME:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if not self.asked and distributed.current().rank == 0:
            name = signal.Signals(number).name
            os.write(2, f"{name}: saves and ends after this step; again, at once\n".encode())
        self.asked = self.asked or number


class Vote:
    """What any rank asks for at a step's end, all know at the end of the next.

    The exchange is under way while the step in between computes, and nobody waits for it.
    """

    def __init__(self) -> None:
        self._flags = torch.zeros(2, dtype=torch.int64)
        self._work: dist.Work | None = None

    def exchange(self, asked: int, save_at: int) -> tuple[int, int]:
        """The greatest of all ranks' numbers; those of the step before, where there are several."""
        if distributed.current().size == 1:
            return asked, save_at
        known = self.finish()
        self._flags = torch.tensor([asked, save_at])
        self._work = dist.all_reduce(self._flags, dist.ReduceOp.MAX, async_op=True)
        return known

    def finish(self) -> tuple[int, int]:
        if self._work is not None:
            self._work.wait()
            self._work = None
        asked, save_at = self._flags.tolist()
        return asked, save_at
