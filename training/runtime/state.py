"""What a run is at a step, and what a checkpoint has to hold to make it that again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose
from patchmill.training.ranks import distributed, sharding
from patchmill.training.runtime import checkpoint, random_state

if TYPE_CHECKING:
    from patchmill.loaders.loader import Loader
    from patchmill.training.config.settings import Config
    from patchmill.training.methods import Method
    from patchmill.training.ranks.distributed import World


@dataclass
class State:
    config: Config
    world: World
    folder: Path
    method: Method
    model: nn.Module  # the method as it is called: over all ranks
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loader: Loader
    amp: torch.dtype | None
    steps_per_epoch: int
    step: int = 0  # how many are done
    best: dict[str, float] = field(default_factory=dict)  # the best evaluation, and its step

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.config.train.epochs

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch


def save(state: State) -> dict[str, Any]:
    """As a checkpoint holds it, on the CPU: all ranks have to call it, and rank 0 gets it."""
    keep = state.world.rank == 0
    distributed.follow_first(state.method.buffers())
    own = {"rng": random_state.state(state.world.device), "loader": state.loader.state_dict()}
    ranks = distributed.objects(own)
    return {
        "version": checkpoint.VERSION,
        "step": state.step,
        "epoch": state.epoch,
        "method": sharding.whole(dict(state.method.state_dict()), keep),
        "optimiser": sharding.whole(state.optimiser.state_dict(), keep),
        "scaler": state.scaler.state_dict(),
        "rng": [it["rng"] for it in ranks],
        "loader": [it["loader"] for it in ranks],
        "config": compose.plain(state.config),
        "best": state.best,
        "world_size": state.world.size,
    }


def is_good(saved: dict[str, Any]) -> bool:
    """Whether every number of the networks is one: a loss shows a bad step only at the next."""
    tensors = (it for it in saved["method"].values() if it.is_floating_point())
    return all(bool(it.isfinite().all()) for it in tensors)


def load_method(saved: dict[str, Any], method: Method, path: Path) -> None:
    """Before it is spread over ranks."""
    try:
        method.load_state_dict(saved["method"])
    except RuntimeError as error:
        raise MillError(
            f"{path} does not fit the networks ({str(error).splitlines()[-1].strip()})"
        ) from None


def load(state: State, saved: dict[str, Any]) -> None:
    """All but the networks; on as many ranks, or others."""
    world = state.world
    sharding.load_optimiser(state.optimiser, saved["optimiser"])
    if saved["scaler"] and state.scaler.is_enabled():
        state.scaler.load_state_dict(saved["scaler"])
    state.step, state.best = saved["step"], saved["best"]
    same = saved["world_size"] == world.size
    state.loader.load_state_dict(saved["loader"][world.rank if same else 0])
    if same:
        random_state.restore(saved["rng"][world.rank], world.device)
    else:
        random_state.seed(state.config.seed, world, state.step)
