"""Runs of a second: a tiny network on a few made-up scenes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_methods import Tiny

from patchmill.training import engine
from patchmill.training.config import compose
from patchmill.training.config.settings import Config
from patchmill.training.nets import backbones
from patchmill.training.runtime import checkpoint, hooks, records

OVERRIDES = {
    "method": "moco",
    "method.views": "moco_v2(size=16)",
    "method.queue": "32",
    "method.symmetric": "false",
    "method.dim": "4",
    "method.hidden": "5",
    "scale": "demo",
    "data": "scenes",
    "data.train": "scenes(count=44, size=32)",
    "data.test": "scenes(count=12, size=32, seed=1)",
    "optim": "sgd",
    "optim.lr": "0.05",
    "optim.warmup": "0",
    "train.epochs": "3",
    "train.batch_size": "8",
    "train.log_every": "2",
    "train.precision": "fp32",
    "train.device": "cpu",
    "train.workers": "1",
    "evaluate": "never",
    "evaluate.view": "eval(size=16, short_side=16)",
    "log.tensorboard": "false",
    "name": "run",
}
EPOCH = 5  # steps


def config(out: Path | str, **overrides: Any) -> Config:
    """Compose a configuration; `train__epochs=2` is train.epochs=2."""
    given = {name.replace("__", "."): str(value) for name, value in overrides.items()}
    return compose.compose([f"{k}={v}" for k, v in {**OVERRIDES, "out": str(out), **given}.items()])


def train(given: Config, network: type[torch.nn.Module] = Tiny) -> Path:
    before = backbones.build
    backbones.build = lambda settings, size, **_: network()
    try:
        return engine.train(given)
    finally:
        backbones.build = before


def final(folder: Path) -> dict[str, Any]:
    found = checkpoint.load_newest(folder)
    assert found is not None
    return found.saved


def logged(folder: Path) -> dict[str, list[float | None]]:
    """Columns of log.csv that do not depend on the machine."""
    measured = ("images_per_s", "wait", "memory_gb")
    return {name: it for name, it in records.read(folder).items() if name not in measured}


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Compare everything that learning depends on, bit by bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            if key not in ("config", "best", "world_size"):
                assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}.{number}")
    else:
        assert one == other, where


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """Send this process a signal in the middle of a step."""
    saw = hooks.Hooks.after_backward

    def saw_and_signal(self, batch, losses):
        saw(self, batch, losses)
        if self._state.step + 1 == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(hooks.Hooks, "after_backward", saw_and_signal)
