"""torch's generators, which dropout and the like draw from; views and their order do not."""

from __future__ import annotations

from typing import Any

import torch

from patchmill.training.ranks.distributed import World


def seed(number: int, world: World | None = None, step: int = 0) -> None:
    """With a world, other draws on every rank; and others than in any step before `step`."""
    if world is not None:
        number += 0x9E3779B97F4A7C15 * (1 + world.rank + world.size * step)
    torch.manual_seed(number % 2**63)


def state(device: torch.device) -> dict[str, Any]:
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def restore(saved: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(saved["cpu"])
    if device.type == "cuda" and "cuda" in saved:
        torch.cuda.set_rng_state(saved["cuda"], device)
