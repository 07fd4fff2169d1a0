"""Where rank 0 keeps what a run tells the world: its files, and what a terminal shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from patchmill.training.config import compose
from patchmill.training.runtime import machine, pictures, run_folder
from patchmill.training.runtime.checkpoint import Writer
from patchmill.training.runtime.display import Display
from patchmill.training.runtime.records import Recorder

if TYPE_CHECKING:
    from patchmill.training.runtime.state import State


class Desk(NamedTuple):
    writer: Writer
    recorder: Recorder
    status: run_folder.Status
    shown: Display


@contextlib.contextmanager
def opened(state: State) -> Iterator[Desk]:
    """`status` is to be told how the run ends, unless by an error."""
    config, folder = state.config, state.folder
    known = machine.described(state.world)
    status = run_folder.Status(
        folder, step=state.step, steps=state.steps, epoch=state.epoch, **known
    )
    try:
        compose.save(config, folder)
        pictures.draw(config, folder)
        with contextlib.ExitStack() as tools:
            writer = Writer(folder, config.train.keep)
            tools.callback(writer.finish)
            recorder = tools.enter_context(contextlib.closing(_recorder(state)))
            what = f"{config.method_name} on {config.data.name}"
            shown = tools.enter_context(Display(state.steps, state.step, what))
            yield Desk(writer, recorder, status, shown)
    except BaseException:
        status.end("failed")
        raise


def _recorder(state: State) -> Recorder:
    log, plain = state.config.log, compose.plain(state.config)
    start = state.step or -1  # a run that begins drops what another left there, even at step 0
    return Recorder(state.folder, plain, start=start, tensorboard=log.tensorboard, wandb=log.wandb)
