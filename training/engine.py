"""Training: the loop, and what a command makes of it."""

from __future__ import annotations

import contextlib
import logging
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from signal import Signals as Names
from typing import TYPE_CHECKING

import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.methods import Progress
from patchmill.training.optim import optimizers, schedules
from patchmill.training.ranks import distributed, failures, sharding
from patchmill.training.ranks import signals as stopping
from patchmill.training.runtime import checkpoint, run_folder, setup
from patchmill.training.runtime.hooks import Between, steps_of
from patchmill.training.runtime.state import State

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config
    from patchmill.training.ranks.distributed import World

log = logging.getLogger("patchmill")


def train(config: Config) -> Path:
    """Trains to the end, and returns the run's folder; raises stopping.Stopped if stopped.

    A run that was stopped or killed goes on where its newest checkpoint is.
    """
    folder = Path(config.out) / config.name
    world = distributed.connect(config.train.device)
    with failures.together(), stopping.Signals() as signals, _alone(folder, world):
        with setup.ready(config, world, folder) as state, steps_of(state, signals) as between:
            loop(state, between)
        if world.rank == 0 and not between.stopped:
            _report(folder)
    distributed.close()
    if between.stopped:
        if world.rank == 0:
            print(_farewell(state, between.stopped), file=sys.stderr)
        raise stopping.Stopped(between.stopped)
    return folder


def loop(state: State, between: Between) -> None:
    """Steps until the last one, or until ranks agree to stop; `between` looks on."""
    train, method = state.config.train, state.method
    while state.step < state.steps and not between.stopped:
        batches = iter(state.loader)
        for _ in range(state.steps_per_epoch - state.step % state.steps_per_epoch):
            rates = _rates(state)
            optimizers.set_rates(state.optimiser, rates)
            method.step_begins(Progress(state.step, state.steps, state.epoch, train.epochs))
            for part in range(1, train.accumulate + 1):
                batch = between.next(batches)
                with sharding.gradients(state.model, complete=part == train.accumulate):
                    with _autocast(state):
                        losses = state.model(batch)
                    state.scaler.scale(losses.loss / train.accumulate).backward()
                between.saw(batch, losses)
                del batch, losses  # so that the loader may write to their memory again
            norm = _clip(state, look=between.wants_norm)
            state.scaler.step(state.optimiser)
            state.scaler.update()
            state.optimiser.zero_grad(set_to_none=True)
            state.step += 1
            if state.step % state.steps_per_epoch == 0:
                for _ in batches:  # what is left of an epoch is less than a step
                    pass
            between.after(norm, rates.lr)
            if between.stopped:
                break


def _rates(state: State) -> schedules.Rates:
    """Of the step to come."""
    settings = state.config.optim
    batch, epoch = state.config.train.batch_size, state.steps_per_epoch
    return schedules.at(settings, batch, state.step, state.steps, epoch)


def _autocast(state: State) -> AbstractContextManager[None]:
    return torch.autocast(state.world.device.type, state.amp, enabled=state.amp is not None)


def _clip(state: State, look: bool) -> torch.Tensor | None:
    """The norm of the whole gradient, where it is needed or to be looked at."""
    most = state.config.optim.grad_clip
    if most is None and not look:
        return None
    state.scaler.unscale_(state.optimiser)
    params = [it for it in state.method.parameters() if it.grad is not None]
    norm = torch.nn.utils.get_total_norm([it.grad for it in params if it.grad is not None])
    if most is not None:
        torch.nn.utils.clip_grads_with_norm_(params, most, norm)
    return sharding.total(norm)


# ------------------------------------------------------------------------------ before and after


def _alone(folder: Path, world: World) -> AbstractContextManager[None]:
    """Rank 0 makes the folder, and holds its lock."""
    return run_folder.alone(folder) if world.rank == 0 else contextlib.nullcontext()


def _report(folder: Path) -> None:
    from patchmill.training import report

    try:
        print(f"report: {report.write(folder)}")
    except MillError as error:  # which must not make a failure of a run that is finished
        log.warning("no report of %s: %s", folder, error)


def _farewell(state: State, signal: int) -> str:
    return (
        f"stopped by {Names(signal).name} after step {state.step:,} of {state.steps:,}, saved as "
        f"{checkpoint.place(state.folder, state.step)}: the same command goes on from there"
    )
