"""Calls of a training step in which the host waits for the GPU, by torch's sync-debug mode."""

from __future__ import annotations

import contextlib
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
_NEVER = 10**9
_WARNING = "synchronizing CUDA operation"


def count(state: State, stacks: StackDump, feed: Feed) -> dict[str, int]:
    """Line of code -> its waits in `STEPS` steps, of which none is logged, as that waits."""
    with _not_logged(state), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            steps.run_turn(state, stacks, feed, 0, STEPS)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [each for each in caught if _WARNING in str(each.message)]
    return dict(Counter(f"{_short(each.filename)}:{each.lineno}" for each in found))


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
