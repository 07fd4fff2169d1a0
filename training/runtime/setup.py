"""Build everything that trains from a configuration, and restore the checkpoint to resume from."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from patchmill.kernels import compiled_code
from patchmill.loaders.common.errors import MillError
from patchmill.training import data, data_notes, methods
from patchmill.training.config import compose, rules
from patchmill.training.nets import float32_convolutions
from patchmill.training.nets.ema import Teacher
from patchmill.training.optim import optimizers
from patchmill.training.ranks import distributed, sharding
from patchmill.training.runtime import checkpoint, device
from patchmill.training.runtime.state import State, seed_generators

if TYPE_CHECKING:
    from patchmill.loaders.loader import Loader
    from patchmill.training.config.settings import Config
    from patchmill.training.methods import Method
    from patchmill.training.ranks.distributed import World

log = logging.getLogger("patchmill")


@contextlib.contextmanager
def build_run(config: Config, world: World, folder: Path) -> Iterator[State]:
    """Build model, optimiser and loader; restore the latest checkpoint.

    Rank 0 chooses the checkpoint for all ranks.
    """
    found = _checkpoint_to_resume(config, folder) if world.rank == 0 else None
    (path, *_) = distributed.gather_objects(found.path if found else None)
    saved = None
    if path:
        saved = found.saved if found else checkpoint.load(path)
        _check_settings(config, saved, path)
    del found
    # Conflicting settings are reported before data are listed, painted or downloaded.
    data.local_batch_size(config, world.size)
    seed_generators(config.seed)  # all ranks start with the same weights
    method = _build_method(config, world)
    if world.rank == 0:
        for line in (*data_notes.notes(config), *_notes_on_device(config, world)):
            log.info("%s", line)
    data_notes.check(config)
    amp = device.amp_dtype(config.train, world.device)
    torch.backends.cudnn.benchmark = True  # sizes are fixed: autotuning pays off
    with contextlib.closing(data.open_training(config, world, folder)) as loader:
        steps_per_epoch = _steps_per_epoch(loader, config)
        if world.device.type == "cpu" and amp is torch.bfloat16:
            float32_convolutions.keep_in_float32(method)
        if saved:
            checkpoint.load_networks(method, saved, path)
        model = sharding.wrap(method, config.train.parallel, world)
        optimiser = optimizers.build(config.optim, method)
        scaler = torch.amp.GradScaler(world.device.type, enabled=amp is torch.float16)
        state = State(
            config, world, folder, method, model, optimiser, scaler, loader, amp, steps_per_epoch
        )
        seed_generators(config.seed, world)
        if saved:
            restore(state, saved, path)
            if world.rank == 0:
                log.info("resuming from %s", path)
                checkpoint.set_aside(folder, state.step)
            del saved
        yield state


def restore(state: State, saved: dict[str, Any], path: Path) -> None:
    """Restore the state of a checkpoint; raise a MillError if it does not fit."""
    try:
        state.load_state_dict(saved)
    except MillError as error:
        raise MillError(
            f"cannot resume from {path}: {error}; or start another run with name=NAME"
        ) from None
    except Exception as error:  # torch raises many types
        raise MillError(
            f"cannot resume from {path}: part of it is missing or has a wrong type "
            f"({type(error).__name__}); name another with resume=PATH"
        ) from None


def _notes_on_device(config: Config, world: World) -> Iterator[str]:
    if config.scale == "paper" and world.device.type == "cpu":
        yield "scale=paper is for GPUs and takes days on a CPU; for a first look use scale=demo"


def _checkpoint_to_resume(config: Config, folder: Path) -> checkpoint.Found | None:
    """Find the checkpoint that config.resume asks for; None to start from scratch."""
    if config.resume == "auto":
        return checkpoint.load_newest(folder)
    if config.resume == "never":
        if checkpoint.find_all(folder):
            raise MillError(
                f"{folder} already holds a run, and resume=never: choose another name=, remove "
                "that folder, or resume with resume=auto"
            )
        return None
    requested, own = Path(config.resume), folder / checkpoint.FOLDER
    if requested.parent.resolve() != own.resolve() and (latest := checkpoint.load_newest(folder)):
        log.info("this run has already started from %s", requested)
        return latest
    return checkpoint.Found(requested, checkpoint.load(requested))


def _check_settings(config: Config, saved: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint with other settings; settings newer than it have their defaults."""
    try:
        before = compose.from_plain(saved.get("config"))
    except MillError as error:
        raise MillError(f"cannot resume from {path}: {error}") from None
    if difference := compose.difference(before, config):
        raise MillError(
            f"{path} belongs to another run: {difference}; resume with the same settings, or start "
            "another run with name=NAME"
        )


def _steps_per_epoch(loader: Loader, config: Config) -> int:
    try:
        steps = len(loader) // config.train.accumulate
    except TypeError:
        raise MillError(
            "streamed shards have no known length: set the batches per epoch, as in data.steps=1000"
        ) from None
    if not steps:
        raise MillError(
            f"an epoch of {len(loader)} batches is less than one step of train.accumulate="
            f"{config.train.accumulate}: lower train.accumulate"
        )
    return steps


def _build_method(config: Config, world: World) -> Method:
    method = methods.build(config, data.classes_to_learn(config))
    rules.check_batch(config, method, world.size)
    if config.train.sync_bn:
        sharding.convert_sync_bn(method, world)
    method.to(world.device)
    if data.channels_last(config, world):
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.train.compile:
        compiled_code.keep_private(
            compiled_code.INDUCTOR, compiled_code.inductor_default(), make=True
        )
        teachers = [module for module in method.modules() if isinstance(module, Teacher)]
        for network in (method.backbone, *teachers):
            network.compile()
    return method.train()
