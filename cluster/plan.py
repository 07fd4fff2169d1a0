"""What a job will do, in figures, before it is queued."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from patchmill.loaders.errors import MillError
from patchmill.loaders.sources import open_data
from patchmill.training import data, schedules
from patchmill.training.settings import Config

STAGE = "loader"  # the row of a throughput file that training cannot be faster than


@dataclass(frozen=True)
class Plan:
    nodes: int
    tasks: int  # processes on each node
    samples: int | None  # in an epoch; None for streams whose length nobody knows
    steps: int | None  # in an epoch
    epochs: int
    batch: int  # over all ranks
    share: int  # of one rank, in each part of a step
    parts: int
    peak: float  # learning rate
    rate: float | None  # images a second that each node's loader was measured to give

    @property
    def ranks(self) -> int:
        return self.nodes * self.tasks

    @property
    def hours(self) -> float | None:
        """At least, if the loader is what takes longest."""
        if not self.rate or not self.steps:
            return None
        return self.steps * self.batch * self.epochs / (self.rate * self.nodes) / 3600

    def __str__(self) -> str:
        parts = f" in {self.parts} parts" if self.parts > 1 else ""
        rows = [
            ("ranks", f"{self.nodes} x {self.tasks} = {self.ranks}"),
            ("global batch", f"{self.batch:,}"),
            ("batch of a rank", f"{self.share * self.parts:,}{parts}"),
            ("learning rate", f"{self.peak:g} at its peak"),
        ]
        if self.steps and self.samples:
            rows += [
                ("samples", f"{self.samples:,}, of which a rank sees {self._seen:,} an epoch"),
                ("steps", f"{self.steps:,} x {self.epochs} epochs"),
            ]
        if self.hours is not None:
            said = f"{self.hours:.3g} at least, if {self.rate:,.0f} images/s a node are the limit"
            rows.append(("hours", said))
        return "\n".join(f"{name:<16} {text}" for name, text in rows)

    @property
    def _seen(self) -> int:
        return (self.steps or 0) * self.share * self.parts


def of(config: Config, nodes: int, tasks: int, throughput: str | None = None) -> Plan:
    """A MillError where the batch cannot be shared out, or the data is not there."""
    train = config.train
    share = data.share(config, nodes * tasks)
    source = open_data(config.data.train)
    samples = len(source) if hasattr(source, "__len__") else None
    steps = config.data.steps if samples is None else samples // train.batch_size
    if steps == 0:
        raise MillError(
            f"{source.name} has {samples} samples, fewer than train.batch_size="
            f"{train.batch_size}: take a smaller batch"
        )
    return Plan(
        nodes,
        tasks,
        samples or (steps and steps * train.batch_size),
        steps,
        train.epochs,
        train.batch_size,
        share,
        train.accumulate,
        schedules.peak(config.optim, train.batch_size),
        measured(Path(throughput)) if throughput else None,
    )


def measured(path: Path) -> float:
    """Images a second, as benchmarks/throughput.py --json writes them."""
    try:
        rows = json.loads(path.read_text())["rows"]
        return float(next(it["images_per_s"] for it in rows if it["name"] == STAGE))
    except OSError as error:
        raise MillError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, StopIteration):
        raise MillError(
            f"{path} holds no throughput of a {STAGE}: make one with python "
            "benchmarks/throughput.py --json FILE"
        ) from None
