"""A run loaded from one of its checkpoints for evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training import data, methods
from patchmill.training.config import compose
from patchmill.training.evaluation.settings import Space
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import checkpoint, device, run_folder
from patchmill.training.runtime.state import seed_generators

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config
    from patchmill.training.methods.method import Encoder, Method
    from patchmill.training.nets.backbones import Backbone


@dataclass(frozen=True)
class TrainedRun:
    folder: Path
    config: Config
    world: World
    method: Method
    amp: torch.dtype | None
    step: int
    epoch: float

    def network(self, space: Space = "h") -> nn.Module:
        """Return the network from images to h, or to the z that the loss is on, unnormalised."""
        return network(self.method, space, self.config.evaluate.encoder)

    @property
    def backbone(self) -> Backbone:
        """The backbone that is evaluated: the student's, or a teacher's."""
        return self.method.encoder(self.config.evaluate.encoder)

    @property
    def projector(self) -> nn.Module | None:
        """The projector of that backbone."""
        return self.method.networks(self.config.evaluate.encoder)[1]

    @property
    def spaces(self) -> list[Space]:
        return ["h"] if self.projector is None else ["h", "z"]


def network(method: Method, space: Space, encoder: Encoder = "auto") -> nn.Module:
    backbone, projector = method.networks(encoder)
    if space == "h":
        return backbone
    if projector is None:
        raise MillError(f"space=z: {type(method).__name__} has no projector, only h")
    return nn.Sequential(backbone, projector)


def load(folder: Path, config: Config, world: World, which: str = "newest") -> TrainedRun:
    """Load a run with the weights of a checkpoint: newest, best, or a path."""
    path, saved = load_checkpoint(folder, which)
    method = untrained(config, world)
    checkpoint.load_networks(method, saved, path)
    amp = device.amp_dtype(config.train, world.device)
    return TrainedRun(folder, config, world, method, amp, saved["step"], saved["epoch"])


def untrained(config: Config, world: World) -> Method:
    """Build the networks as the run initialised them."""
    classes = data.classes_to_learn(config)
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        seed_generators(config.seed)
        method = methods.build(config, classes)
    method.to(world.device)
    if data.channels_last(config, world):
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return method


def load_checkpoint(folder: Path, which: str) -> checkpoint.Found:
    """Load a checkpoint: newest, best, or a path."""
    if which not in ("newest", "best"):
        return checkpoint.Found(Path(which), checkpoint.load(which))
    if which == "newest":
        found = checkpoint.load_newest(folder)
    else:
        best = folder / checkpoint.FOLDER / checkpoint.BEST
        found = checkpoint.Found(best, checkpoint.load(best)) if best.exists() else None
    if found is None:
        raise MillError(f"the run in {folder} has no {which} checkpoint yet: train it first")
    return found


def check_finished(folder: Path) -> None:
    """Raise a MillError unless the run is done: an unfinished run says little about a method."""
    status = run_folder.read_status(folder)
    if status.get("state") == "done":
        return
    progress = ""
    if {"step", "steps"} <= set(status):
        progress = f" (step {status['step']} of {status['steps']})"
    raise MillError(
        f"the run in {folder} is not finished{progress}: run its command again, or use it as it is "
        "with unfinished=true"
    )


def load_config(folder: Path) -> Config:
    if not folder.is_dir():
        raise MillError(f"there is no run {folder}: name a run's folder, as in run=runs/NAME")
    return compose.load(folder)
