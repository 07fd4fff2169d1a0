"""State of a training run that checkpoints save and restore."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from patchmill.training.config import compose
from patchmill.training.ranks import distributed, sharding
from patchmill.training.runtime import checkpoint

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
    model: nn.Module  # the method, wrapped for data parallelism
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loader: Loader
    amp: torch.dtype | None
    steps_per_epoch: int
    step: int = 0  # steps completed
    best: dict[str, float] = field(default_factory=dict)  # the best evaluation, and its step
    unlogged: dict[str, Any] = field(default_factory=dict)  # LossMeter.unlogged, as last saved

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.config.train.epochs

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return a checkpoint's contents, on the CPU. A collective: rank 0 gets the tensors."""
        keep = self.world.rank == 0
        distributed.broadcast_from_rank0(self.method.buffers())
        per_rank = distributed.gather_objects(
            {"rng": generator_state(self.world.device), "loader": self.loader.state_dict()}
        )
        return {
            "version": checkpoint.VERSION,
            "step": self.step,
            "epoch": self.epoch,
            "method": sharding.full_state(dict(self.method.state_dict()), keep),
            "optimiser": sharding.full_state(self.optimiser.state_dict(), keep),
            "scaler": self.scaler.state_dict(),
            "rng": [rank["rng"] for rank in per_rank],
            "loader": [rank["loader"] for rank in per_rank],
            "config": compose.plain(self.config),
            "best": self.best,
            "unlogged": self.unlogged,
            "world_size": self.world.size,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore everything except the method, on any number of ranks."""
        world = self.world
        sharding.load_optimiser(self.optimiser, saved["optimiser"])
        if saved["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(saved["scaler"])
        self.step, self.best = saved["step"], saved["best"]
        self.unlogged = saved.get("unlogged", {})  # which older checkpoints do not have
        if self.unlogged and self.unlogged["values"].shape[1:] != (
            len(self.unlogged["names"]) + 1,
        ):
            raise ValueError("the losses not yet logged have another shape")
        same_ranks = saved["world_size"] == world.size
        self.loader.load_state_dict(saved["loader"][world.rank if same_ranks else 0])
        if same_ranks:
            restore_generators(saved["rng"][world.rank], world.device)
        else:
            seed_generators(self.config.seed, world, self.step)


# ------------------------------------------------------------------------------- torch's generators
# Used by dropout, for example, but not by the loaders for views and sample order.


def seed_generators(seed: int, world: World | None = None, step: int = 0) -> None:
    """Seed torch; with a world, differently for each rank and each step that a run resumes at."""
    if world is not None:
        seed += 0x9E3779B97F4A7C15 * (1 + world.rank + world.size * step)
    torch.manual_seed(seed % 2**63)


def generator_state(device: torch.device) -> dict[str, Any]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_generators(saved: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(saved["cpu"])
    if device.type == "cuda" and "cuda" in saved:
        torch.cuda.set_rng_state(saved["cuda"], device)
