"""Hooks between training steps: logging, checkpointing, evaluation. None affects what is learnt."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch

from patchmill.loaders import advice
from patchmill.loaders.files.writing import output_errors
from patchmill.training import data_notes
from patchmill.training.config import compose
from patchmill.training.data import SETTINGS
from patchmill.training.evaluation import online
from patchmill.training.ranks import distributed, sharding
from patchmill.training.ranks.failures import StackDump
from patchmill.training.ranks.signals import Signals, Stopped, Vote
from patchmill.training.runtime import (
    checkpoint,
    device,
    pictures,
    records,
    run_folder,
    threshold,
)
from patchmill.training.runtime.display import Display
from patchmill.training.runtime.metrics import LossMeter, ThroughputMeter

if TYPE_CHECKING:
    from patchmill.loaders.batch import ViewBatch
    from patchmill.training import methods
    from patchmill.training.runtime.state import State


WAITING = 0.05  # share of time spent waiting for data above which advice is printed


class Outputs(NamedTuple):
    """Everything rank 0 writes to: the run's folder and the terminal."""

    writer: checkpoint.Writer
    recorder: records.Recorder
    status: run_folder.Status
    display: Display


@contextlib.contextmanager
def open_hooks(state: State, signals: Signals) -> Iterator[Hooks]:
    """Open the hooks of a run, on every rank; rank 0's own its outputs and report its end."""
    with contextlib.ExitStack() as stack:
        outputs = None
        if state.world.rank == 0:
            outputs = stack.enter_context(_open_outputs(state))
            signals.writing = lambda: outputs.writer.busy
            signals.abandon = lambda: outputs.status.end("stopped")
        with output_errors(state.folder):
            dump = StackDump(state.folder)
        stacks = stack.enter_context(contextlib.closing(dump))
        hooks = Hooks(state, signals, stacks, outputs)
        hooks.before_training()
        yield hooks
        hooks.after_training()
    if outputs:
        ended = "stopped" if hooks.stopped else "done"
        outputs.status.end(ended, step=state.step, epoch=state.epoch, **hooks.measured)


class Hooks:
    stopped = 0  # number of the signal that all ranks agreed to stop for
    reached = 0.0  # time of the evaluation with the accuracy of evaluate.stop_at

    def __init__(
        self, state: State, signals: Signals, stacks: StackDump, outputs: Outputs | None
    ) -> None:
        self._state, self._signals, self._stacks, self._outputs = state, signals, stacks, outputs
        self._losses = LossMeter(self._last_good, state.unlogged)
        self._throughput = ThroughputMeter()
        self._vote, self._advised = Vote(), ""
        self._saved_at, self._save_step = time.monotonic(), 0
        self._evaluation_s = 0.0

    # ------------------------------------------------------------------------- called by the engine

    @property
    def ended(self) -> bool:
        """True if the run must end here, before its last step."""
        return bool(self.stopped or self.reached)

    @property
    def measured(self) -> dict[str, float]:
        """Seconds spent on evaluations, and the time one reached evaluate.stop_at, if any."""
        times = {"evaluation_s": self._evaluation_s}
        return times | ({"reached": self.reached} if self.reached else {})

    def before_training(self) -> None:
        """Evaluate the untrained network, or the one that the run resumes from."""
        state = self._state
        if self._outputs and state.step:
            self._outputs.display.say(f"resuming after step {state.step:,} of {state.steps:,}")
        # FSDP can gather the backbone by itself only after a forward pass of the whole method.
        if state.step % state.steps_per_epoch == 0 and not sharding.is_sharded(state.model):
            self._evaluate()

    def next_batch(self, batches: Iterator[ViewBatch]) -> ViewBatch:
        return self._throughput.next(batches)

    def after_backward(self, batch: ViewBatch, losses: methods.Losses) -> None:
        """Record one micro-batch."""
        self._losses.add(batch.ids, {"loss": losses.loss, **losses.metrics}, losses.settled)
        self._throughput.add(len(batch) * self._state.world.size)

    @property
    def wants_grad_norm(self) -> bool:
        """True if the current step will be logged."""
        return self._is_logged(self._state.step + 1)

    def after_step(self, grad_norm: torch.Tensor | None, lr: float) -> None:
        """Log, save and evaluate if due, and stop if the ranks agreed to."""
        state, train = self._state, self._state.config.train
        self._losses.end_step(state.step)
        signal, save_step = self._vote.exchange(self._signals.first, self._next_save())
        epoch_ends = state.step % state.steps_per_epoch == 0
        if self._is_logged(state.step):
            self._log(grad_norm, lr)
        every = train.checkpoint_every
        if epoch_ends or signal or state.step == save_step or (every and state.step % every == 0):
            self._save()
        if signal:
            self._signals.saved()
        if epoch_ends and not signal:
            self._evaluate()
        if self._outputs:
            if epoch_ends:
                self._advise(self._outputs)
            self._outputs.writer.check()
        self.stopped = signal

    def after_training(self) -> None:
        self._vote.wait()

    # -------------------------------------------------------------------------------------- logging

    def _is_logged(self, step: int) -> bool:
        return step % self._state.config.train.log_every == 0 or step == self._state.steps

    def _log(self, grad_norm: torch.Tensor | None, lr: float) -> None:
        state = self._state
        speeds = self._throughput.take()
        values = self._losses.take() | {"lr": lr, **speeds, "epoch": state.epoch}
        self._stacks.reset()
        if not self._outputs:
            return
        if grad_norm is not None:
            values["grad_norm"] = grad_norm.item()
        if state.world.device.type == "cuda":
            values["memory_gb"] = torch.cuda.max_memory_allocated(state.world.device) / 1e9
        self._outputs.recorder.scalars(state.step, values)
        self._outputs.display.update(state.step, state.epoch, values)
        images_left = (state.steps - state.step) * state.config.train.batch_size
        loss, stats = values["loss"], state.loader.stats()
        self._outputs.status.beat(
            step=state.step,
            epoch=state.epoch,
            **({} if loss is None else {"loss": loss}),
            images_per_s=speeds["images_per_s"],
            eta_s=images_left / speeds["images_per_s"],
            loader=stats.plain() | {"advice": advice.sentence(stats, SETTINGS)},
            checkpoint_s=self._outputs.writer.seconds,
        )

    def _advise(self, outputs: Outputs) -> None:
        """Print the loader's bottleneck if training waits for it, once per bottleneck."""
        stats = self._state.loader.stats()
        sentence = advice.sentence(stats, SETTINGS)
        if stats.wait_share >= WAITING and sentence != self._advised:
            self._advised = sentence
            outputs.display.say(f"training waits {stats.wait_share:.0%} of the time: {sentence}")

    # -------------------------------------------------------------------------------- checkpointing

    def _next_save(self) -> int:
        """Return the step to save at by rank 0's clock; 0 while no checkpoint is due."""
        train = self._state.config.train
        due = time.monotonic() - self._saved_at > 60 * train.checkpoint_minutes
        if self._outputs and due and not train.checkpoint_every and not self._save_step:
            self._save_step = self._state.step + 1
        return self._save_step

    def _save(self) -> None:
        """Save a checkpoint, unless the loss or the weights are not finite."""
        with self._throughput.paused():
            self._state.unlogged = self._losses.unlogged()
            saved = self._state.state_dict()
            diverged = bool(self._outputs) and not checkpoint.weights_are_finite(saved)
            if distributed.any_rank(diverged):
                raise self._losses.diverged_weights()
            if self._outputs:
                self._outputs.writer.save(saved)
            self._saved_at, self._save_step = time.monotonic(), 0

    def _last_good(self) -> str:
        if self._outputs:
            self._outputs.writer.wait()
        paths = checkpoint.find_all(self._state.folder)
        return distributed.gather_objects(str(paths[-1]) if paths else "the beginning")[0]

    # ----------------------------------------------------------------------------------- evaluation

    def _evaluate(self) -> None:
        """Measure kNN accuracy and other metrics after an epoch, and mark the best checkpoint."""
        state, settings = self._state, self._state.config.evaluate
        epoch = state.step // state.steps_per_epoch
        if not settings.knn_every or epoch % settings.knn_every:
            return
        if not data_notes.measurable(state.config):
            return
        with self._signals.may_stop():  # the checkpoint of this step is saved
            self._measure(epoch)

    def _measure(self, epoch: int) -> None:
        state, settings = self._state, self._state.config.evaluate
        began = time.monotonic()
        with self._throughput.paused():
            scores = self._recorded_scores()
            if not scores:
                distributed.broadcast_from_rank0(state.method.buffers())
                scores = online.measure(state.method, state.config, state.world)
                if self._outputs:
                    self._outputs.recorder.evaluation(state.step, state.epoch, scores)
                    self._outputs.display.say(f"epoch {epoch}: {online.text(scores)}")
            if state.step and scores.get("knn", -1) > state.best.get("knn", -1):
                state.best = {"knn": scores["knn"], "step": state.step}
                if self._outputs:
                    self._outputs.writer.mark_best(state.step)
            self._stacks.reset()
        self._evaluation_s += time.monotonic() - began
        if state.step and distributed.any_rank(threshold.reached(settings, scores)):
            self.reached = time.time()
            if self._outputs:
                epochs = state.config.train.epochs
                self._outputs.display.say(threshold.sentence(settings, epoch, epochs))

    def _recorded_scores(self) -> dict[str, float]:
        """Return scores of this step that an earlier start recorded before it was killed."""
        rows = records.evaluations(self._state.folder) if self._outputs else []
        same_step = [row for row in rows if row["step"] == self._state.step and _is_measured(row)]
        return distributed.gather_objects(same_step[-1] if same_step else {})[0]


def _is_measured(row: Mapping[str, float]) -> bool:
    """True for a row written by training: accuracies or, without labels, only collapse metrics."""
    return "knn" in row or ("rankme_h" in row and "linear_online" not in row)


@contextlib.contextmanager
def _open_outputs(state: State) -> Iterator[Outputs]:
    """Open rank 0's outputs. On error the status ends as failed; the caller sets any other end."""
    config, folder = state.config, state.folder
    status = run_folder.Status(
        folder,
        began=time.time(),
        step=state.step,
        steps=state.steps,
        epoch=state.epoch,
        **device.describe(state.world),
    )
    try:
        compose.save(config, folder)
        pictures.draw(config, folder)
        with contextlib.ExitStack() as stack:
            writer = checkpoint.Writer(folder, config.train.keep, state.step)
            stack.callback(writer.wait)
            with output_errors(folder):
                opened = _recorder(state)
            recorder = stack.enter_context(contextlib.closing(opened))
            title = f"{config.method_name} on {config.data.name}"
            display = stack.enter_context(Display(state.steps, state.step, title))
            yield Outputs(writer, recorder, status, display)
    except Stopped:
        status.end("stopped", step=state.step, epoch=state.epoch)
        raise
    except BaseException:
        status.end("failed")
        raise


def _recorder(state: State) -> records.Recorder:
    log = state.config.log
    return records.Recorder(
        state.folder,
        compose.plain(state.config),
        start=state.step or -1,  # a new run also drops rows that another left for step 0
        tensorboard=log.tensorboard,
        wandb=log.wandb,
    )
