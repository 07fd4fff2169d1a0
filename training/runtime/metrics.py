"""Meters of a run: losses that stay on the device until they are logged, and throughput."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.ranks import distributed

Batch = TypeVar("Batch")

MOST_IDS = 8  # sample ids listed in an error


class StepValues(NamedTuple):
    step: int
    ids: list[torch.Tensor]  # of the samples of each micro-batch
    values: torch.Tensor  # the loss, its metrics, and the settled share, on their device


class LossMeter:
    """Mean losses between logged steps; only `check` and `take` wait for the device.

    A run that resumes between two logged steps passes the result of `unlogged` back in.
    """

    def __init__(
        self, last_good: Callable[[], str], unlogged: Mapping[str, Any] | None = None
    ) -> None:
        self._last_good = last_good  # names the checkpoint to return to after divergence
        self._names: list[str] = []
        self._ids: list[torch.Tensor] = []  # of the current step, by micro-batch
        self._micro_values: list[torch.Tensor] = []
        self._unchecked: list[StepValues] = []
        self._last: StepValues | None = None
        self._checked: list[torch.Tensor] = []  # means over ranks since the last `take`
        if unlogged:
            self._names, self._checked = list(unlogged["names"]), [unlogged["values"].double()]

    def add(
        self,
        ids: torch.Tensor,
        losses: Mapping[str, torch.Tensor],
        settled: torch.Tensor | None = None,
    ) -> None:
        """Record one micro-batch; `settled` is its Losses.settled."""
        if list(losses) != self._names:  # on the first call, or if another version logged others
            self._names, self._checked = list(losses), []
        self._ids.append(ids)
        values = [value.detach().float() for value in losses.values()]
        values.append(torch.ones_like(values[0]) if settled is None else settled.float())
        self._micro_values.append(torch.stack(values))

    def end_step(self, step: int) -> None:
        """Average the micro-batches since the last step."""
        self._last = StepValues(step, self._ids, torch.stack(self._micro_values).mean(0))
        self._unchecked.append(self._last)
        self._ids, self._micro_values = [], []

    def check(self) -> None:
        """Raise a MillError if the loss of a step was NaN or infinite on any rank."""
        if not self._unchecked:
            return
        steps, self._unchecked = self._unchecked, []
        local = torch.stack([step.values for step in steps])
        values = distributed.mean(local).double().cpu()
        finite = values.isfinite().all(1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            pairs = zip(self._names, values[row, :-1].tolist(), strict=True)
            here = not bool(local[row].isfinite().all())
            raise self._diverged(steps[row], ", ".join(f"{n} {v:g}" for n, v in pairs), here)
        self._checked.append(values)

    def unlogged(self) -> dict[str, Any]:
        """Return the losses since the last `take`, for a checkpoint; the same on all ranks."""
        self.check()
        width = len(self._names) + 1
        return {
            "names": self._names,
            "values": torch.cat([torch.zeros(0, width, dtype=torch.double), *self._checked]),
        }

    def take(self) -> dict[str, float | None]:
        """Return means over ranks and over the steps since the last call.

        The loss is averaged over steps with a settled loss; None if there are none.
        """
        self.check()
        values = torch.cat(self._checked)
        self._checked = []
        means = dict(zip(self._names, values[:, :-1].mean(0).tolist(), strict=True))
        settled = values[values[:, -1] == 1, self._names.index("loss")]
        return means | {"loss": settled.mean().item() if len(settled) else None}

    def diverged_weights(self) -> MillError:
        """Return the error for a step with a finite loss and a non-finite update."""
        assert self._last
        return self._diverged(self._last, "its weights are no longer finite", True)

    def _diverged(self, step: StepValues, what: str, here: bool) -> MillError:
        """Build the error, with sample ids from the ranks that diverged; a collective."""
        per_rank = distributed.gather_objects(torch.cat(step.ids).tolist() if here else [])
        ids = [str(id) for rank_ids in per_rank for id in rank_ids]
        more = f" and {len(ids) - MOST_IDS} more" if len(ids) > MOST_IDS else ""
        return MillError(
            f"training diverged at step {step.step} ({what}), with samples "
            f"{', '.join(ids[:MOST_IDS])}{more}: lower optim.lr, lengthen optim.warmup, or inspect "
            f"the samples; the last good state is {self._last_good()}"
        )


class ThroughputMeter:
    """Images per second, and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self._images, self._waited, self._start = 0, 0.0, time.perf_counter()

    def next(self, batches: Iterator[Batch]) -> Batch:
        """Return the next batch, and count the time as waiting for data."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    def add(self, images: int) -> None:
        self._images += images

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude time that is not training."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """Return the rates since the last call."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        rates = {"images_per_s": self._images / seconds, "wait": min(self._waited / seconds, 1.0)}
        self.__init__()  # type: ignore[misc]
        return rates
