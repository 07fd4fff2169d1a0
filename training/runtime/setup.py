"""Everything that trains, put together, as it was at the checkpoint that a run goes on from."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training import data, methods
from patchmill.training.config import compose, rules
from patchmill.training.config.recipes import training_recipe
from patchmill.training.nets import backbones
from patchmill.training.nets.ema import Teacher
from patchmill.training.optim import optimizers
from patchmill.training.ranks import distributed, sharding
from patchmill.training.runtime import checkpoint, precision, random_state
from patchmill.training.runtime import state as states
from patchmill.training.runtime.state import State

if TYPE_CHECKING:
    from patchmill.loaders.loader import Loader
    from patchmill.training.config.settings import Config
    from patchmill.training.methods import Method
    from patchmill.training.ranks.distributed import World

log = logging.getLogger("patchmill")


@contextlib.contextmanager
def ready(config: Config, world: World, folder: Path) -> Iterator[State]:
    """On all ranks alike; rank 0 says which checkpoint it is."""
    (path, *_) = distributed.objects(_newest(config, folder) if world.rank == 0 else None)
    saved = _load(config, path) if path else None
    amp = precision.of(config.train, world.device)
    torch.backends.cudnn.benchmark = True  # sizes stay the same: trying out algorithms pays
    with contextlib.closing(data.open_training(config, world, folder)) as loader:
        steps = _steps_per_epoch(loader, config)
        random_state.seed(config.seed)  # all ranks begin with the same weights
        method = _method(config, world)
        if saved:
            states.load_method(saved, method, path)
        model = sharding.spread(method, config.train.parallel, world)
        optimiser = optimizers.build(config.optim, method)
        scaler = torch.amp.GradScaler(world.device.type, enabled=amp is torch.float16)
        state = State(
            config, world, folder, method, model, optimiser, scaler, loader, amp, steps
        )  # fmt: skip
        random_state.seed(config.seed, world)
        if saved:
            states.load(state, saved)
            if world.rank == 0:
                log.info("going on from %s", path)
                checkpoint.set_aside(folder, state.step)
            del saved
        yield state


def _newest(config: Config, folder: Path) -> Path | None:
    """The checkpoint to go on from; None to begin."""
    if config.resume == "auto":
        return checkpoint.newest(folder)
    if config.resume == "never":
        if checkpoint.kept(folder):
            raise MillError(
                f"{folder} holds a run already, and resume=never: choose another name=, remove "
                "that folder, or go on with resume=auto"
            )
        return None
    chosen, own = Path(config.resume), checkpoint.newest(folder)
    if own and own.parent.resolve() != chosen.parent.resolve():
        log.info("this run has begun from %s before", chosen)
        return own
    return chosen


def _load(config: Config, path: Path) -> dict[str, Any]:
    saved = checkpoint.load(path)
    if difference := compose.difference(saved["config"], config):
        raise MillError(
            f"{path} is of another run: {difference}; go on with the same settings, or begin "
            "another run, as name=NAME"
        )
    return saved


def _steps_per_epoch(loader: Loader, config: Config) -> int:
    try:
        steps = len(loader) // config.train.accumulate
    except TypeError:
        raise MillError(
            "how long an epoch is cannot be told of streamed shards: say how many batches, as "
            "data.steps=1000"
        ) from None
    if not steps:
        raise MillError(
            f"an epoch of {len(loader)} batches is less than one step of train.accumulate="
            f"{config.train.accumulate}: take fewer parts"
        )
    return steps


def _method(config: Config, world: World) -> Method:
    (view, *_) = training_recipe(config).views
    labels = data.labels(config) if methods.METHODS[config.method_name].needs_labels else None
    backbone = backbones.build(config.model, view.size)
    method = methods.build(config, backbone, labels)
    rules.check_batch(config, method, world.size)
    if config.train.sync_bn:
        sharding.sync_norms(method, world)
    last = data.channels_last(config, world)
    method.to(world.device)
    if last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.train.compile:
        for network in (
            method.backbone,
            *(it for it in method.modules() if isinstance(it, Teacher)),
        ):
            network.compile()
    return method.train()
