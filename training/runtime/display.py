"""How a run looks while it goes on: a moving line on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any

LINES_EVERY = 10.0  # seconds, where nothing moves
MOVES_PER_S = 4


def speak(first: bool) -> None:
    """News and progress of the first rank go to standard error; of the others, warnings alone."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("patchmill").setLevel(logging.INFO if first else logging.WARNING)


class Display:
    """`with Display(steps, start, "dilo on scenes") as shown`: `shown.update(...)`, `.say(...)`.

    Only rank 0 shows anything; the others' is `Display(..., quiet=True)`.
    """

    def __init__(self, steps: int, start: int, what: str, quiet: bool = False) -> None:
        self._steps, self._start, self._what, self._quiet = steps, start, what, quiet
        self._began = self._due = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Display:
        self._began = self._due = time.monotonic()
        if not self._quiet and sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(
                self._what, total=self._steps, completed=self._start, told=""
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """After `step` steps, with the latest scalars of a row of log.csv."""
        if self._bar:
            self._bar.update(self._task, completed=step, told=_told(epoch, values))
        elif not self._quiet and (time.monotonic() >= self._due or step >= self._steps):
            self._due = time.monotonic() + LINES_EVERY
            left = f", {self._left(step)} left" if self._start < step < self._steps else ""
            self._print(f"step {step:,} of {self._steps:,}: {_told(epoch, values)}{left}")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        elif not self._quiet:
            self._print(text)

    def _left(self, step: int) -> timedelta:
        pace = (time.monotonic() - self._began) / (step - self._start)
        return timedelta(seconds=round(pace * (self._steps - step)))

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _bar() -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=None),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[told]}"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=MOVES_PER_S,
        expand=True,
    )


def _told(epoch: float, values: Mapping[str, float]) -> str:
    """`epoch 3.2, loss 6.913, 812 images/s, waits 1 %`; of what there is."""
    forms = {
        "loss": "loss {:.4g}",
        "images_per_s": "{:,.0f} images/s",
        "wait": "waits for data {:.0%}",
    }
    told = [form.format(values[name]) for name, form in forms.items() if name in values]
    return ", ".join([f"epoch {epoch:.1f}", *told])
