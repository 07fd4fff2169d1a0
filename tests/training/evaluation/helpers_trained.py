"""Folders of runs with a checkpoint of a tiny network that was never trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helpers_runs
import pytest
import torch
from helpers_methods import Tiny

from patchmill.training.config import compose
from patchmill.training.config.settings import Config
from patchmill.training.evaluation import trained_run
from patchmill.training.evaluation.trained_run import TrainedRun
from patchmill.training.nets import backbones
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import checkpoint

BAG = {
    "method": "bagssl",
    "method.views": "bagssl(patches=2, size=16, scale=0.2)",
    "method.hidden": "[5]",
    "method.dim": "4",
    "data.train": "scenes(count=14, size=32)",
    "data.test": "scenes(count=6, size=32, seed=1)",
    "evaluate": "knn",
    "evaluate.batch_size": "4",
}
MOCO = ("method.queue", "method.symmetric", "method.dim", "method.hidden", "method.views")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "build", lambda settings, size, **_: Tiny())


def settings(out: Path, **overrides: Any) -> Config:
    given = {name.replace("__", "."): str(value) for name, value in overrides.items()}
    base = {key: value for key, value in helpers_runs.OVERRIDES.items() if key not in MOCO}
    return compose.compose([f"{k}={v}" for k, v in {**base, **BAG, "out": out, **given}.items()])


def write(config: Config, state: str = "done", step: int = 3, seed: int = 9) -> Path:
    """Write a run's folder, with weights of another seed than its initial ones."""
    folder = Path(config.out) / config.name
    folder.mkdir(parents=True)
    compose.save(config, folder)
    before, config.seed = config.seed, seed
    method = trained_run.untrained(config, World())
    config.seed = before
    _set_running_statistics(method)
    saved = {
        "version": checkpoint.VERSION,
        "step": step,
        "epoch": 1.0,
        "method": method.state_dict(),
    }
    writer = checkpoint.Writer(folder, keep=2)
    writer.save(saved)
    writer.wait()
    (folder / "log.csv").write_text("step,loss\n2,1.5\n3,1.25\n")
    status = {"state": state, "step": step, "steps": 4}
    (folder / "status.json").write_text(json.dumps(status))
    return folder


def _set_running_statistics(method: Any) -> None:
    """Set running statistics of batch norms as if after many images."""
    draws = torch.Generator().manual_seed(4)
    shades = torch.randn(64, 3, 1, 1, generator=draws)
    views = shades + 0.2 * torch.randn(64, 3, 16, 16, generator=draws)
    for module in method.modules():
        if hasattr(module, "running_mean"):
            module.momentum = 1.0
    with torch.no_grad():
        h = method.train().backbone(views)
        if method.projector is not None:
            method.projector(h)


def run(out: Path, **overrides: Any) -> TrainedRun:
    config = settings(out, **overrides)
    return trained_run.load(write(config), config, World())
