"""Damaged checkpoints: the previous one is loaded, and wrong contents never are."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from helpers_runs import assert_same

from patchmill.loaders.common.errors import MillError
from patchmill.training.runtime import checkpoint
from trust.check import Check, Outcome, Task
from trust.fuzz.damage import damaged

SUMMED, OLDER = "with a checksum", "of before"


def contents(step: int) -> dict[str, Any]:
    """Contents like a small network's checkpoint."""
    draws = torch.Generator().manual_seed(step)
    weights = {f"layer{i}.weight": torch.randn(4 + i, 3, generator=draws) for i in range(9)}
    states = {i: {"momentum_buffer": tensor.clone()} for i, tensor in enumerate(weights.values())}
    return {
        "version": checkpoint.VERSION,
        "step": step,
        "epoch": step / 5,
        "method": {**weights, "queue": torch.randn(8, 4, generator=draws).half()},
        "optimiser": {"state": states, "param_groups": [{"lr": 0.1, "params": list(range(9))}]},
        "rng": [{"cpu": torch.get_rng_state()}],
        "loader": [{"version": 1, "epoch": 0, "consumed": 8 * step, "data": "8e1c", "seed": 0}],
        "config": {"method_name": "moco", "seed": 0, "optim": {"lr": 0.1, "betas": [0.9, 0.999]}},
    }


def written(folder: Path) -> Path:
    """Write two checkpoints to a run's folder; return the newer one."""
    writer = checkpoint.Writer(folder, keep=2)
    for step in (1, 2):
        writer.save(contents(step))
    writer.wait()
    return checkpoint.path_at(folder, 2)


def fuzz(task: Task) -> Outcome:
    logging.getLogger("patchmill").setLevel(logging.ERROR)
    last = written(task.folder)
    seeds = {SUMMED: last.read_bytes()}
    torch.save(contents(2), last)
    seeds[OLDER] = last.read_bytes()
    outcome = Outcome()
    for index in range(task.tries):
        kind = OLDER if index % 3 == 2 else SUMMED
        done, data = damaged(seeds[kind], task.random(index))
        last.write_bytes(data)
        end, problem = _tried(task.folder, last)
        outcome.tried(end)
        if problem:
            outcome.failed(f"{problem}: try {index}, {done}, a checkpoint {kind}")
        if index % 2000 == 1999:
            task.note(f"{index + 1:,} damaged checkpoints, {outcome.failures} failures")
    return outcome


def _tried(folder: Path, last: Path) -> tuple[str, str]:
    """Outcome of resuming from the damaged checkpoint, and the problem with it, if any."""
    try:
        found = checkpoint.load_newest(folder)
        assert found is not None
        assert_same(found.saved, contents(2 if found.path == last else 1))
    except Exception as error:
        return "", f"{type(error).__name__} ({str(error)[:200]})"
    if found.path == last:
        return "without effect", ""
    try:
        checkpoint.load(last)
    except MillError as error:
        text = str(error)
        well = "\n" not in text and "weights_only" not in text
        return "the one before", "" if well else f"a bad error message: {text[:200]}"
    except Exception as error:
        return "", f"{type(error).__name__} when named explicitly ({str(error)[:200]})"
    return "", "it is loaded when named explicitly, but skipped otherwise"


CHECKS = (
    Check("fuzz-checkpoints", "damaged checkpoints, resumed from", fuzz, 40, 8000, 50_000, 30),
)
