"""Saved states with missing or wrong parts: one sentence, or a valid position."""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import helpers_runs
import torch
from helpers_methods import Tiny

from patchmill import loaders
from patchmill.loaders.common.errors import MillError
from patchmill.training.nets import backbones
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import setup
from patchmill.training.runtime.metrics import LossMeter
from patchmill.training.runtime.state import State
from trust.check import Check, Outcome, Task

OTHERS: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: -1,
    lambda: 2**70,
    lambda: 0.5,
    lambda: math.nan,
    lambda: True,
    lambda: "x",
    lambda: b"x",
    list,
    dict,
    lambda: torch.zeros(0),
    lambda: torch.zeros(3, 5, dtype=torch.int64),
    lambda: torch.zeros(2, dtype=torch.complex64),
)


def changed(state: Any, draw: random.Random) -> tuple[str, Any]:
    """Describe and make a copy with one part removed or of another type."""
    state = copy.deepcopy(state)
    place, path = state, "state"
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw.choice(keys)
        path += f"[{key!r}]"
        inside = place[key]
        if isinstance(inside, dict | list) and inside and draw.random() < 0.8:
            place = inside
            continue
        if draw.random() < 0.2:
            del place[key]
            return f"{path} is gone", state
        place[key] = draw.choice(OTHERS)()
        return f"{path} is {place[key]!r}", state


def fuzz_loaders(task: Task) -> Outcome:
    loader = loaders.build("scenes(count=40, size=32)", "moco_v2(size=16)", batch_size=4, workers=1)
    sound, outcome = loader.state_dict() | {"consumed": 8}, Outcome()
    for index in range(task.tries):
        what, state = changed(sound, task.random(index))
        try:
            loader.load_state_dict(state)
            position = loader.state_dict()
            well = 0 <= position["consumed"] <= 40 and len(next(iter(loader))) == 4
            outcome.tried("taken")
            if not well:
                outcome.failed(f"a position that does not exist: try {index}, {what}")
        except MillError as error:
            outcome.tried("one sentence")
            if "\n" in str(error):
                outcome.failed(f"a bad error message: try {index}, {what}: {error}")
        except Exception as error:
            outcome.tried()
            outcome.failed(f"{type(error).__name__} ({str(error)[:200]}): try {index}, {what}")
    loader.close()
    return outcome


def fuzz_training(task: Task) -> Outcome:
    """Training states, as stored in checkpoints."""
    logging.getLogger("patchmill").setLevel(logging.CRITICAL)
    torch.set_num_threads(1)
    before, backbones.build = backbones.build, lambda settings, size, **_: Tiny()
    try:
        config = helpers_runs.config(task.folder)
        with setup.build_run(config, World(), task.folder / "run") as state:
            meter = LossMeter(lambda: "")
            meter.add(torch.tensor([1]), {"loss": torch.tensor(1.0), "spread": torch.tensor(0.5)})
            meter.end_step(1)
            state.unlogged = meter.unlogged()
            return _changed_states(task, state, state.state_dict())
    finally:
        backbones.build = before


def _changed_states(task: Task, state: State, sound: dict[str, Any]) -> Outcome:
    outcome = Outcome()
    for index in range(task.tries):
        what, saved = changed(sound, task.random(index))
        try:
            setup.restore(state, saved, Path("step.pt"))
            LossMeter(lambda: "", state.unlogged)
            outcome.tried("taken")
        except MillError as error:
            outcome.tried("one sentence")
            if "\n" in str(error):
                outcome.failed(f"a bad error message: try {index}, {what}: {error}")
        except Exception as error:
            outcome.tried()
            outcome.failed(f"{type(error).__name__} ({str(error)[:200]}): try {index}, {what}")
    return outcome


CHECKS = (
    Check("fuzz-states", "changed states of loaders", fuzz_loaders, 100, 20_000, 100_000, 15),
    Check("fuzz-run-states", "changed states of runs", fuzz_training, 30, 5000, 50_000, 27),
)
