"""Graceful stop: a signal sets a flag, all ranks agree on it, the engine checkpoints and exits.

After SIGTERM, SIGINT (Ctrl-C), SIGUSR1 or SIGUSR2 a run saves a checkpoint and exits with STOPPED:
the same command resumes it. If nothing has been learnt since the last checkpoint, as during setup
and evaluations, a run of one process exits immediately. The same signal again, at least a second
later, ends the process immediately.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
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

    Threads inside torch's process group sometimes abort the process during interpreter shutdown,
    which would change the exit code by which torchrun and SLURM judge a run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Signals:
    """Context in which signals only set `first`, except in `may_stop`, where they raise Stopped.

    A signal that an enclosing Signals received, and that was not acted on, counts here too.
    """

    active: Signals | None = None  # the innermost

    def __init__(self) -> None:
        self.first = 0  # number of the first signal received; 0 for none
        self.saves = True  # the run has to save a checkpoint before it can end
        self.writing: Callable[[], bool] = lambda: False  # a checkpoint is being written
        self.abandon: Callable[[], None] = lambda: None  # note in the run's folder that it stopped
        self._announced = threading.Lock()

    def __enter__(self) -> Signals:
        self._times: dict[int, float] = {}
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # others cannot handle signals
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
            outer = getattr(self._before[SIGNALS[0]], "__self__", None)
            self.first = outer.first if isinstance(outer, Signals) else 0
        self._outer, Signals.active = Signals.active, self
        return self

    def __exit__(self, *_: object) -> None:
        Signals.active = self._outer
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def may_stop(self) -> Iterator[None]:
        """Mark work that is repeated, not lost, if a signal ends a run of one process."""
        if distributed.current().size > 1:  # ranks agree on when they end
            yield
            return
        before, self.saves = self.saves, False
        self._stop_if_signalled()
        yield
        self._stop_if_signalled()  # Python drops an exception that a handler raises in a destructor
        self.saves = before

    def saved(self) -> None:
        """Note that the run's last checkpoint is taken, and that the run ends now."""
        self.saves = distributed.current().size > 1

    def announce(self, number: int) -> None:
        """Report once that the signal was received, and what the run still waits for."""
        if not self._announced.acquire(blocking=False) or distributed.current().rank:
            return
        if self.saves:
            what = "checkpointing after this step, then exiting; send again to exit now"
        elif self.writing():
            what = "exiting when the checkpoint is written; send again to exit now"
        else:
            what = "exiting, as there is nothing to save; run the same command to resume"
        os.write(2, f"{signal.Signals(number).name} received: {what}\n".encode())

    def _stop_if_signalled(self) -> None:
        if self.first:
            raise Stopped(self.first)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._times.setdefault(number, now) > SAME:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.announce(number)
        if not self.first:
            self.first = number
            if not self.saves:
                raise Stopped(number)


class Vote:
    """Asynchronous agreement of all ranks on a stop signal and on the next step to save at.

    Flags that a rank sets at the end of a step are known to all ranks at the end of the next: the
    all-reduce overlaps with the step in between.
    """

    def __init__(self) -> None:
        self._flags = torch.zeros(2, dtype=torch.int64)
        self._work: dist.Work | None = None

    def exchange(self, signal_number: int, save_at: int) -> tuple[int, int]:
        """Return the maximum over ranks of both; with several ranks, of the previous step's."""
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
