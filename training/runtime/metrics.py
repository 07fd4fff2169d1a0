"""What steps measured: losses that stay on their device until asked for, and where time went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.ranks import distributed

Thing = TypeVar("Thing")

SHOWN = 8  # ids of samples that an error names


class Step(NamedTuple):
    number: int
    ids: list[torch.Tensor]  # of the samples of each part
    values: torch.Tensor  # the loss and its parts, on their device


class Losses:
    """Of the steps since they were last looked at: a look is the only wait for the device."""

    def __init__(self, last_good: Callable[[], str]) -> None:
        self._last_good = last_good  # names the state that is left when a later one is no good
        self._names: list[str] = []
        self._ids: list[torch.Tensor] = []  # of the step under way, part by part
        self._parts: list[torch.Tensor] = []
        self._steps: list[Step] = []  # not looked at yet
        self._last: Step | None = None
        self._looked: list[torch.Tensor] = []  # means over ranks, not taken yet

    def saw(self, ids: torch.Tensor, losses: Mapping[str, torch.Tensor]) -> None:
        """One part of a step, or all of it."""
        self._names = list(losses)
        self._ids.append(ids)
        self._parts.append(torch.stack([value.detach().float() for value in losses.values()]))

    def end(self, number: int) -> None:
        """The parts since the last step were this one."""
        self._last = Step(number, self._ids, torch.stack(self._parts).mean(0))
        self._steps.append(self._last)
        self._ids, self._parts = [], []

    def look(self) -> None:
        """A MillError if a step's loss, on any rank, was not a number."""
        if not self._steps:
            return
        steps, self._steps = self._steps, []
        own = torch.stack([step.values for step in steps])
        values = distributed.mean(own).double().cpu()
        good = values.isfinite().all(1)
        if not good.all():
            row = int((~good).nonzero()[0])
            said = zip(self._names, values[row].tolist(), strict=True)
            mine = not bool(own[row].isfinite().all())
            raise self._diverged(steps[row], ", ".join(f"{n} {v:g}" for n, v in said), mine)
        self._looked.append(values)

    def take(self) -> dict[str, float]:
        """Means over the steps since this was last called."""
        self.look()
        means = torch.cat(self._looked).mean(0).tolist()
        self._looked = []
        return dict(zip(self._names, means, strict=True))

    def spoilt(self) -> MillError:
        """For when the last step made weights of what was still a number."""
        assert self._last
        return self._diverged(self._last, "its weights are not numbers any more", True)

    def _diverged(self, step: Step, what: str, mine: bool) -> MillError:
        """Names the samples of those ranks that say it is `mine`."""
        found = distributed.objects(torch.cat(step.ids).tolist() if mine else [])
        ids = [str(id) for of_rank in found for id in of_rank]
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        return MillError(
            f"training diverged at step {step.number} ({what}), with samples "
            f"{', '.join(ids[:SHOWN])}{more}: lower optim.lr, lengthen optim.warmup, or look at "
            f"the samples; the last good state is {self._last_good()}"
        )


class Pace:
    """Images a second, and the share of time that was spent waiting for them."""

    def __init__(self) -> None:
        self._images, self._waited, self._began = 0, 0.0, time.perf_counter()

    def next(self, batches: Iterator[Thing]) -> Thing:
        """The next of them; how long that takes is time waited for data."""
        began = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - began
        return batch

    def add(self, images: int) -> None:
        self._images += images

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """For what is not training."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def take(self) -> dict[str, float]:
        """Since this was last called."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        found = {"images_per_s": self._images / seconds, "wait": min(self._waited / seconds, 1.0)}
        self.__init__()  # type: ignore[misc]
        return found
