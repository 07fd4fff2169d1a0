"""Progress of a run: a bar on a terminal, occasional lines elsewhere, and a final summary."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from patchmill.loaders.common.log_lines import StderrLines
from patchmill.loaders.common.printed import printable
from patchmill.training.runtime import collapse, records

LINES_EVERY = 10.0  # seconds between lines, without a bar
REFRESHES_PER_S = 4


def configure_logging(is_rank0: bool) -> None:
    """Log to standard error: everything from rank 0, only warnings from the others."""
    logging.basicConfig(format="%(message)s", handlers=[StderrLines()])
    logging.getLogger("patchmill").setLevel(logging.INFO if is_rank0 else logging.WARNING)


class Display:
    """Live progress on standard error, for rank 0.

    `with Display(steps, start, "dilo on scenes") as display`: `display.update(...)`, `.say(...)`.
    """

    def __init__(self, steps: int, start: int, title: str) -> None:
        self._steps, self._start, self._title = steps, start, printable(title)
        self._began = self._next_line = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Display:
        self._began = self._next_line = time.monotonic()
        if sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(
                self._title, total=self._steps, completed=self._start, status=""
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

    def update(self, step: int, epoch: float, values: Mapping[str, float | None]) -> None:
        """Show the state after `step` steps; `values` is the latest row of log.csv."""
        if self._bar:
            self._bar.update(self._task, completed=step, status=_status_line(epoch, values))
        elif time.monotonic() >= self._next_line or step >= self._steps:
            self._next_line = time.monotonic() + LINES_EVERY
            left = f", {self._time_left(step)} left" if self._start < step < self._steps else ""
            self._print(f"step {step:,} of {self._steps:,}: {_status_line(epoch, values)}{left}")

    def say(self, text: str) -> None:
        """Print a permanent line, above the bar if there is one."""
        text = printable(text, lines=True)
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._print(text)

    def _time_left(self, step: int) -> timedelta:
        pace = (time.monotonic() - self._began) / (step - self._start)
        return timedelta(seconds=round(pace * (self._steps - step)))

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def summary(folder: Path) -> str:
    """Summarise a finished run: first and last loss and kNN accuracy, then a chart of the accuracy.

    A collapse found by the last evaluation is reported, too.
    """
    losses = [loss for loss in records.read(folder).get("loss", []) if loss is not None]
    knn_rows = [row for row in records.evaluations(folder) if "knn" in row]
    parts = []
    if len(losses) > 1:
        parts.append(f"loss {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")
    if len(knn_rows) > 1 and knn_rows[0]["step"] == 0:
        before, after = knn_rows[0]["knn"], knn_rows[-1]["knn"]
        parts.append(f"kNN accuracy {before:.1%} untrained, {after:.1%} trained")
    if knn_rows and (collapsed := collapse.sentence(knn_rows[-1])):
        parts.append(collapsed)
    return "\n".join(["; ".join(parts), *_knn_chart(knn_rows)])


def _knn_chart(rows: Sequence[Mapping[str, float]], width: int = 40) -> list[str]:
    """Draw one bar per evaluation; no chart for fewer than three."""
    if len(rows) < 3:
        return []
    scale = width / max(max(row["knn"] for row in rows), 1e-9)
    return [
        f"  epoch {row['epoch']:4.0f}  kNN {row['knn']:6.1%}  {'█' * round(row['knn'] * scale)}"
        for row in rows
    ]


def _bar() -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[status]}"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=REFRESHES_PER_S,
        expand=True,
    )


def _status_line(epoch: float, values: Mapping[str, float | None]) -> str:
    """Format `epoch 3.2, loss 6.913, 812 images/s, waits for data 1%`, without missing values."""
    forms = {
        "loss": "loss {:.4g}",
        "images_per_s": "{:,.0f} images/s",
        "wait": "waits for data {:.0%}",
    }
    known = {name: value for name, value in values.items() if value is not None}
    parts = [form.format(known[name]) for name, form in forms.items() if name in known]
    return ", ".join([f"epoch {epoch:.1f}", *parts])
