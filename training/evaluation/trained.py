"""A run that is over, or as far as it has come, as its checkpoint has it: to be evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training import data, methods
from patchmill.training.config import compose
from patchmill.training.config.recipes import training_recipe
from patchmill.training.nets import backbones
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import checkpoint, precision, random_state, run_folder

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config
    from patchmill.training.methods import Method

Space = Literal["h", "z"]


@dataclass(frozen=True)
class Trained:
    folder: Path
    config: Config
    world: World
    method: Method
    amp: torch.dtype | None
    step: int
    epoch: float

    def network(self, space: Space = "h") -> nn.Module:
        """From images to h, or to the z that the loss is on; of the projector's own length."""
        return network(self.method, space)

    @property
    def spaces(self) -> list[Space]:
        return ["h"] if self.method.projector is None else ["h", "z"]


def network(method: Method, space: Space) -> nn.Module:
    if space == "h":
        return method.backbone
    if method.projector is None:
        raise MillError(f"space=z: {type(method).__name__} has no projector, it has h alone")
    return nn.Sequential(method.backbone, method.projector)


def load(folder: Path, config: Config, world: World, which: str = "newest") -> Trained:
    """With the weights of a checkpoint: newest, best, or a path."""
    path = find(folder, which)
    saved = checkpoint.load(path)
    method = untrained(config, world)
    try:
        method.load_state_dict(saved["method"])
    except RuntimeError as error:
        raise MillError(
            f"{path} does not fit the networks ({str(error).splitlines()[-1].strip()})"
        ) from None
    amp = precision.of(config.train, world.device)
    return Trained(folder, config, world, method, amp, saved["step"], saved["epoch"])


def untrained(config: Config, world: World) -> Method:
    """The networks as the run began with them."""
    needs = methods.METHODS[config.method_name].needs_labels
    labels = data.labels(config) if needs else None
    (view, *_) = training_recipe(config).views
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        random_state.seed(config.seed)
        method = methods.build(config, backbones.build(config.model, view.size), labels)
    method.to(world.device)
    if data.channels_last(config, world):
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return method


def find(folder: Path, which: str) -> Path:
    """The checkpoint that newest, best or a path means."""
    if which not in ("newest", "best"):
        return Path(which)
    best = folder / checkpoint.FOLDER / checkpoint.BEST
    path = checkpoint.newest(folder) if which == "newest" else best
    if path is None or not path.exists():
        raise MillError(f"the run in {folder} has no {which} checkpoint yet: train it first")
    return path


def check_finished(folder: Path) -> None:
    """Nobody should take a half-trained network's figures for a method's."""
    found = run_folder.read(folder)
    if found.get("state") == "done":
        return
    far = f" (step {found['step']} of {found['steps']})" if {"step", "steps"} <= set(found) else ""
    raise MillError(
        f"the run in {folder} is not finished{far}: run its command again, or evaluate it as it "
        "is, with unfinished=true"
    )


def configuration(folder: Path) -> Config:
    if not folder.is_dir():
        raise MillError(f"there is no run {folder}: name the folder of one, as run=runs/NAME")
    return compose.load(folder)
