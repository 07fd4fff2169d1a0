"""Calls in a training step where the host waits for the GPU, from torch's sync debug mode."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from patchmill.benchmarks.lib.training import steps

if TYPE_CHECKING:
    from patchmill.benchmarks.lib.training.feeds import Feed
    from patchmill.training.ranks.failures import StackDump
    from patchmill.training.runtime.state import State

STEPS = 10
LOADER = "patchmill"  # prefix of its threads' names
_NEVER = 10**9
_WARNING = "synchronizing CUDA operation"


def count(state: State, stacks: StackDump, feed: Feed) -> dict[str, int]:
    """Line of code -> its waits in `STEPS` steps, none of which is logged, as logging waits.

    Threads of the loader may wait: training does not wait for them.
    """
    found: Counter[str] = Counter()

    def note(message: object, _: object, file: str, line: int, *rest: object) -> None:
        of_loader = threading.current_thread().name.startswith(LOADER)
        if _WARNING in str(message) and not of_loader:
            found[f"{_short(file)}:{line}"] += 1

    with _not_logged(state), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            steps.run_turn(state, stacks, feed, 0, STEPS)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return dict(found)


@contextlib.contextmanager
def _not_logged(state: State) -> Iterator[None]:
    train = state.config.train
    usual, train.log_every = train.log_every, _NEVER
    try:
        yield
    finally:
        train.log_every = usual


def _short(file: str) -> str:
    return "/".join(Path(file).parts[-3:])
