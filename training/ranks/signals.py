"""Graceful stop: a signal sets a flag, all ranks agree on it, the engine checkpoints and exits.

After SIGTERM, SIGINT (Ctrl-C), SIGUSR1 or SIGUSR2 a run saves a checkpoint and exits with STOPPED:
the same command resumes it. The same signal again, a second or more later, ends the process at
once.
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
    """Exit of a run that a signal stopped; `signal` is the same on all ranks."""

    def __init__(self, signal: int) -> None:
        super().__init__(STOPPED)
        self.signal = signal


def exit_now(code: int = STOPPED) -> NoReturn:
    """Exit without interpreter shutdown, once everything is saved.

    Threads inside torch's process group sometimes abort the process while the interpreter shuts
    down, and the exit code, by which torchrun and SLURM judge a run, would be another.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Signals:
    """Context in which signals only set `first`.

    A signal that an enclosing Signals received, and nobody has acted on, counts here too.
    """

    first = 0  # number of the first signal received; 0 for none

    def __enter__(self) -> Signals:
        self._times: dict[int, float] = {}
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # others may not handle signals
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
            outer = getattr(self._before[SIGNALS[0]], "__self__", None)
            self.first = outer.first if isinstance(outer, Signals) else 0
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._times.setdefault(number, now) > SAME:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if not self.first and distributed.current().rank == 0:
            name = signal.Signals(number).name
            message = "checkpointing after this step, then exiting; send again to exit now"
            os.write(2, f"{name} received: {message}\n".encode())
        self.first = self.first or number


class Vote:
    """Asynchronous agreement of all ranks on a stop signal and on the next step to save at.

    Flags that a rank sets at the end of a step are known to all at the end of the next: the
    all-reduce overlaps with the step in between.
    """

    def __init__(self) -> None:
        self._flags = torch.zeros(2, dtype=torch.int64)
        self._work: dist.Work | None = None

    def exchange(self, signal_number: int, save_at: int) -> tuple[int, int]:
        """Maximum over ranks of both numbers; with several ranks, those of the step before."""
        if distributed.current().size == 1:
            return signal_number, save_at
        agreed = self.wait()
        self._flags = torch.tensor([signal_number, save_at])
        self._work = dist.all_reduce(self._flags, dist.ReduceOp.MAX, async_op=True)
        return agreed

    def wait(self) -> tuple[int, int]:
        """Wait for the exchange in flight."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        signal_number, save_at = self._flags.tolist()
        return signal_number, save_at
