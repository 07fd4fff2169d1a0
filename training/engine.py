"""The training loop."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from patchmill.loaders.common.errors import MillError, memory_error
from patchmill.training.data import local_batch_size
from patchmill.training.methods import Progress
from patchmill.training.optim import clipping, optimizers, schedules
from patchmill.training.ranks import distributed, failures, sharding, signals
from patchmill.training.runtime import checkpoint, records, run_folder, setup
from patchmill.training.runtime.hooks import Hooks, open_hooks
from patchmill.training.runtime.state import State

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config
    from patchmill.training.ranks.distributed import World

log = logging.getLogger("patchmill")


def train(config: Config) -> Path:
    """Build a run, or resume it from its last checkpoint, train it, and return its folder.

    Raise signals.Stopped if a signal stopped the run.
    """
    records.check_wandb(config.log.wandb)
    folder = Path(config.out) / config.name
    world = distributed.connect(config.train.device)
    with failures.shared(), signals.Signals() as received, _lock_folder(folder, world):
        with contextlib.ExitStack() as stack:
            with received.may_stop():
                state = stack.enter_context(setup.build_run(config, world, folder))
                hooks = stack.enter_context(open_hooks(state, received))
            with _memory_errors(config, world):
                train_steps(state, hooks)
        if world.rank == 0 and not hooks.stopped:
            with received.may_stop():
                _write_report(folder)
    distributed.close()
    if hooks.stopped:
        if world.rank == 0:
            print(_stop_message(state, hooks.stopped), file=sys.stderr)
        raise signals.Stopped(hooks.stopped)
    return folder


def train_steps(state: State, hooks: Hooks) -> None:
    """Train until the last step, until all ranks agree to stop, or to evaluate.stop_at."""
    train, method = state.config.train, state.method
    while state.step < state.steps and not hooks.ended:
        batches = iter(state.loader)
        for _ in range(state.steps_per_epoch - state.step % state.steps_per_epoch):
            rates = _rates(state)
            optimizers.set_rates(state.optimiser, rates)
            progress = Progress(state.step, state.steps, state.epoch, train.epochs)
            method.on_step_start(progress)
            for micro_batch in range(1, train.accumulate + 1):
                batch = hooks.next_batch(batches)
                with sharding.grad_sync(state.model, enabled=micro_batch == train.accumulate):
                    with _autocast(state):
                        losses = state.model(batch)
                    state.scaler.scale(losses.loss / train.accumulate).backward()
                hooks.after_backward(batch, losses)
                del batch, losses  # so that the loader can reuse their memory
            grad_norm = _clip_gradients(state, hooks.wants_grad_norm)
            method.before_update(progress)
            state.scaler.step(state.optimiser)
            state.scaler.update()
            method.after_update(progress)
            state.optimiser.zero_grad(set_to_none=True)
            state.step += 1
            if state.step % state.steps_per_epoch == 0:
                for _ in batches:  # the epoch's last batches, too few for another step
                    pass
            hooks.after_step(grad_norm, rates.lr)
            if hooks.ended:
                break


def _rates(state: State) -> schedules.Rates:
    """Return the learning rate and weight decay of the next step."""
    settings, batch_size = state.config.optim, state.config.train.batch_size
    return schedules.rates_at(settings, batch_size, state.step, state.steps, state.steps_per_epoch)


def _autocast(state: State) -> AbstractContextManager[None]:
    return torch.autocast(state.world.device.type, state.amp, enabled=state.amp is not None)


def _clip_gradients(state: State, wants_norm: bool) -> torch.Tensor | None:
    """Clip the gradient as configured; return its norm before clipping, if computed."""
    optim = state.config.optim
    if optim.grad_clip is None and optim.clip_each is None and not wants_norm:
        return None
    state.scaler.unscale_(state.optimiser)
    params = [param for param in state.method.parameters() if param.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    if optim.grad_clip is not None:
        torch.nn.utils.clip_grads_with_norm_(params, optim.grad_clip, norm)
    if optim.clip_each is not None:
        clipping.clip_each(params, optim.clip_each)
    return sharding.full_norm(norm)


# ------------------------------------------------------------------------------- before and after


@contextlib.contextmanager
def _memory_errors(config: Config, world: World) -> Iterator[None]:
    """Turn out-of-memory errors of the GPU or the host into a MillError that says what to set."""
    images = f"{local_batch_size(config, world.size)} images at a time"
    remedy = (
        f"set train.accumulate={2 * config.train.accumulate}, which halves them and keeps the "
        "batch, or use a smaller train.batch_size, model or size"
    )
    try:
        yield
    except torch.OutOfMemoryError:
        raise MillError(f"the GPU has too little memory for {images}: {remedy}") from None
    except (MemoryError, RuntimeError, OSError) as error:
        out_of_memory = memory_error(error, images, remedy)
        if out_of_memory is None:
            raise
        raise out_of_memory from None


def _lock_folder(folder: Path, world: World) -> AbstractContextManager[None]:
    return run_folder.lock(folder) if world.rank == 0 else contextlib.nullcontext()


def _write_report(folder: Path) -> None:
    from patchmill.training import report

    try:
        print(f"report: {report.write(folder)}")
    except MillError as error:  # the run is finished: not a failure
        log.warning("no report of %s: %s", folder, error)


def _stop_message(state: State, number: int) -> str:
    return (
        f"stopped by {signal.Signals(number).name} after step {state.step:,} of {state.steps:,}, "
        f"saved as {checkpoint.path_at(state.folder, state.step)}: run the same command to resume"
    )
