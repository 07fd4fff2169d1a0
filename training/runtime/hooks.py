"""What happens between steps: logging, saving, evaluating. Nothing here alters what is learnt."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from patchmill.training.evaluation import knn
from patchmill.training.ranks import distributed, sharding
from patchmill.training.ranks.failures import Stacks
from patchmill.training.ranks.signals import Signals, Vote
from patchmill.training.runtime import checkpoint, console, records
from patchmill.training.runtime import state as states
from patchmill.training.runtime.metrics import Losses, Pace

if TYPE_CHECKING:
    from patchmill.loaders.batch import ViewBatch
    from patchmill.training import methods
    from patchmill.training.runtime.state import State


@contextlib.contextmanager
def steps_of(state: State, signals: Signals) -> Iterator[Between]:
    """What looks after a run while it trains, on every rank; rank 0 writes."""
    with contextlib.ExitStack() as tools:
        first = state.world.rank == 0
        at = tools.enter_context(console.opened(state)) if first else None
        stacks = tools.enter_context(contextlib.closing(Stacks(state.folder)))
        between = Between(state, signals, stacks, at)
        between.begin()
        yield between
        between.finish()
    if at:
        ended = "stopped" if between.stopped else "done"
        at.status.end(ended, step=state.step, epoch=state.epoch)


class Between:
    stopped = 0  # the signal by which all ranks are to end here

    def __init__(
        self, state: State, signals: Signals, stacks: Stacks, at: console.Desk | None
    ) -> None:
        self._state, self._signals, self._stacks, self._at = state, signals, stacks, at
        self._losses, self._pace, self._vote = Losses(self._last_good), Pace(), Vote()
        self._saved, self._save_at = time.monotonic(), 0

    # ------------------------------------------------------------------------- what the loop calls

    def begin(self) -> None:
        """A network is evaluated before it has learnt anything, and where a run was stopped."""
        state = self._state
        if self._at and state.step:
            self._at.shown.say(f"going on after step {state.step:,} of {state.steps:,}")
        # FSDP puts a backbone together only after it has seen the whole method at work.
        if state.step % state.steps_per_epoch == 0 and not sharding.in_pieces(state.model):
            self._evaluate()

    def next(self, batches: Iterator[ViewBatch]) -> ViewBatch:
        return self._pace.next(batches)

    def saw(self, batch: ViewBatch, losses: methods.Losses) -> None:
        self._losses.saw(batch.ids, {"loss": losses.loss, **losses.parts})
        self._pace.add(len(batch) * self._state.world.size)

    @property
    def wants_norm(self) -> bool:
        """Of the gradient of the step under way."""
        return self._logs(self._state.step + 1)

    def after(self, norm: torch.Tensor | None, rate: float) -> None:
        """A step."""
        state, train = self._state, self._state.config.train
        self._losses.end(state.step)
        asked, save_at = self._vote.exchange(self._signals.asked, self._due())
        asked = asked if state.step < state.steps else 0  # nothing is left to stop
        over = state.step % state.steps_per_epoch == 0
        if self._logs(state.step):
            self._log(norm, rate)
        every = train.checkpoint_every
        if over or asked or state.step == save_at or (every and state.step % every == 0):
            self._save()
        if over and not asked:
            self._evaluate()
        if self._at:
            self._at.writer.check()
        self.stopped = asked

    def finish(self) -> None:
        self._vote.finish()

    # -------------------------------------------------------------------------------------- logging

    def _logs(self, step: int) -> bool:
        return step % self._state.config.train.log_every == 0 or step == self._state.steps

    def _log(self, norm: torch.Tensor | None, rate: float) -> None:
        state = self._state
        values = self._losses.take() | {"lr": rate, **self._pace.take(), "epoch": state.epoch}
        self._stacks.moving()
        if not self._at:
            return
        if norm is not None:
            values["grad_norm"] = norm.item()
        if state.world.device.type == "cuda":
            values["memory_gb"] = torch.cuda.max_memory_allocated(state.world.device) / 1e9
        self._at.recorder.scalars(state.step, values)
        self._at.shown.update(state.step, state.epoch, values)
        left = (state.steps - state.step) * state.config.train.batch_size
        speed = values["images_per_s"]
        self._at.status.beat(
            step=state.step,
            epoch=state.epoch,
            loss=values["loss"],
            images_per_s=speed,
            eta_s=left / speed,
            checkpoint_s=self._at.writer.seconds,
        )

    # --------------------------------------------------------------------------------------- saving

    def _due(self) -> int:
        """The step to save at, as rank 0's clock has it; 0 while it is not yet time."""
        train = self._state.config.train
        late = time.monotonic() - self._saved > 60 * train.checkpoint_minutes
        if self._at and late and not train.checkpoint_every and not self._save_at:
            self._save_at = self._state.step + 1
        return self._save_at

    def _save(self) -> None:
        with self._pace.paused():
            self._losses.look()  # a loss that is no number: no checkpoint
            saved = states.save(self._state)
            if distributed.any_of(bool(self._at) and not states.is_good(saved)):
                raise self._losses.spoilt()
            if self._at:
                self._at.writer.save(saved)
            self._saved, self._save_at = time.monotonic(), 0

    def _last_good(self) -> str:
        if self._at:
            self._at.writer.finish()
        kept = checkpoint.kept(self._state.folder)
        return distributed.objects(str(kept[-1]) if kept else "the beginning")[0]

    # ----------------------------------------------------------------------------------- evaluating

    def _evaluate(self) -> None:
        state, settings = self._state, self._state.config.evaluate
        epoch = state.step // state.steps_per_epoch
        if not settings.knn_every or epoch % settings.knn_every or not state.config.data.test:
            return
        with self._pace.paused():
            found = self._evaluated()
            if not found:
                distributed.follow_first(state.method.buffers())
                found = knn.online(state.method, state.config, state.world)
                if self._at:
                    self._at.recorder.evaluation(state.step, state.epoch, found)
                    self._at.shown.say(f"epoch {epoch}: kNN {found['knn']:.1%}")
            if state.step and found["knn"] > state.best.get("knn", -1):
                state.best = {"knn": found["knn"], "step": state.step}
                if self._at:
                    self._at.writer.mark_best(state.step)
            self._stacks.moving()

    def _evaluated(self) -> dict[str, float]:
        """What a life found here that was killed before it could save that."""
        rows = records.evaluations(self._state.folder) if self._at else []
        found = [row for row in rows if row["step"] == self._state.step and "knn" in row]
        return distributed.objects(found[-1] if found else {})[0]
