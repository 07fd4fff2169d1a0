"""What a job will do, in figures, before it is queued."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchmill.cluster.resources import Resources, minutes
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_data
from patchmill.training import data
from patchmill.training.config.settings import Config
from patchmill.training.optim import schedules

STAGE = "loader"  # the row of a throughput file that training cannot be faster than


@dataclass(frozen=True)
class Measured:
    """What benchmarks/throughput.py found of a loader."""

    rate: float  # images a second
    workers: int | None  # that gave it; None where the file does not say
    on_gpu: bool

    def of_node(self, tasks: int, workers: int) -> float:
        """Of so many processes of so many workers, as if none got into another's way."""
        if self.on_gpu:
            return self.rate * tasks
        return self.rate * tasks * workers / self.workers if self.workers else self.rate

    def __str__(self) -> str:
        if self.on_gpu:
            return f"measured: {self.rate:,.0f} for a GPU"
        by = {None: "a node", 1: "a worker"}.get(self.workers, f"{self.workers} workers")
        return f"measured: {self.rate:,.0f} for {by}"


@dataclass(frozen=True)
class Plan:
    config: Config
    needs: Resources
    samples: int | None  # in an epoch; None for streams, whose shards nobody has counted
    steps: int  # in an epoch
    share: int  # images of one rank, in each part of a step
    measured: Measured | None

    @property
    def ranks(self) -> int:
        return self.needs.nodes * self.needs.tasks

    @property
    def seen(self) -> int:
        """Images of a rank in an epoch."""
        return self.steps * self.share * self.config.train.accumulate

    @property
    def workers(self) -> int:
        """Loading threads of a rank."""
        return self.config.train.workers or self.needs.cpus_per_task

    @property
    def rate(self) -> float | None:
        """Images a second of all loaders."""
        if self.measured is None:
            return None
        return self.measured.of_node(self.needs.tasks, self.workers) * self.needs.nodes

    @property
    def hours(self) -> float | None:
        """At least, if the loader is what takes longest."""
        train = self.config.train
        return (
            self.steps * train.batch_size * train.epochs / self.rate / 3600 if self.rate else None
        )

    def __str__(self) -> str:
        return "\n".join(f"{name:<16} {text}" for name, text in self._rows())

    def _rows(self) -> Iterator[tuple[str, str]]:
        train = self.config.train
        parts = f" in {train.accumulate} parts" if train.accumulate > 1 else ""
        yield (
            "trains",
            f"{self.config.method_name}: {self.config.model.name}, {self.config.size} pixels",
        )
        yield "ranks", f"{self.needs.nodes} x {self.needs.tasks} = {self.ranks}"
        yield "global batch", f"{train.batch_size:,}"
        yield "batch of a rank", f"{self.share * train.accumulate:,}{parts}"
        yield "learning rate", self._rate_text()
        if self.samples:
            count = f"{self.samples:,}, of which a rank sees {self.seen:,} an epoch"
        else:
            count = f"streamed; a rank sees {self.seen:,} an epoch"
        yield "samples", count
        total = self.steps * train.epochs
        yield "steps", f"{self.steps:,} x {train.epochs} epochs = {total:,}"
        yield "hours", self._hours_text()

    def _rate_text(self) -> str:
        optim, batch = self.config.optim, self.config.train.batch_size
        text = f"{schedules.peak(optim, batch):g} at its peak"
        if optim.scaled:
            text += f" = {optim.lr:g} x {batch:,} / 256"
        if optim.warmup:
            text += f", after {optim.warmup:g} epoch{'s' * (optim.warmup != 1)} of warm-up"
        return text

    def _hours_text(self) -> str:
        if self.hours is None or self.rate is None:
            return (
                "not known: measure what a node loads, by python benchmarks/throughput.py "
                "--json FILE, and say --throughput FILE"
            )
        text = f"{_short(self.hours)} at least, if loading {self.rate:,.0f} images/s is the limit"
        lives = math.ceil(self.hours * 60 / minutes(self.needs.time))
        if lives > 1 and self.needs.requeue:
            text += f"; {lives} times {self.needs.time}"
        return f"{text} ({self.measured})"

    def warnings(self) -> list[str]:
        """What will work, and not as somebody may think."""
        found = []
        source, needs = open_data(self.config.data.train), self.needs
        if hasattr(source, "stream") and (rest := len(source.stream.urls) % self.ranks):
            few = len(source.stream.urls) // self.ranks
            found.append(
                f"{len(source.stream.urls)} streamed shards are dealt to {self.ranks} ranks: "
                f"{rest} of them read {few + 1}, the others {few}, whose samples come more often; "
                f"make a multiple of {self.ranks}"
            )
        if self.workers > needs.cpus_per_task:
            found.append(
                f"train.workers={self.workers} share the {needs.cpus_per_task} cores of a process: "
                f"ask for more, as --cpus-per-task {self.workers}"
            )
        if not needs.requeue and self.hours and self.hours * 60 > minutes(needs.time):
            found.append(
                f"it takes {_short(self.hours)} hours at least, and ends after {needs.time}, as it "
                "is not to be queued again: ask for more --time"
            )
        return found


def of(config: Config, needs: Resources, throughput: str | None = None) -> Plan:
    """A MillError where the batch cannot be shared out, or the data is not there."""
    train = config.train
    share = data.share(config, needs.nodes * needs.tasks)
    source = open_data(config.data.train)
    samples = source.sample_count
    data.check_sample_count(source, config)
    steps = _streamed(config) if samples is None else samples // train.batch_size
    found = measured(Path(throughput)) if throughput else None
    return Plan(config, needs, samples, steps, share, found)


def measured(path: Path) -> Measured:
    """As benchmarks/throughput.py --json writes it."""
    try:
        found = json.loads(path.read_text())
        row = next(it for it in found["rows"] if it["name"] == STAGE)
        on_gpu = str(found.get("device", "")).startswith("cuda")
        return Measured(float(row["images_per_s"]), row.get("workers"), on_gpu)
    except OSError as error:
        raise MillError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, StopIteration, AttributeError):
        raise MillError(
            f"{path} holds no throughput of a {STAGE}: make one with python "
            "benchmarks/throughput.py --json FILE"
        ) from None


def _short(hours: float) -> str:
    return f"{hours:,.3g}" if hours >= 0.01 else "less than 0.01"


def _streamed(config: Config) -> int:
    if config.data.steps is None:
        raise MillError(
            "how long an epoch is cannot be told of streamed shards: say how many batches, as "
            "data.steps=1000"
        )
    if steps := config.data.steps // config.train.accumulate:
        return steps
    raise MillError(
        f"an epoch of data.steps={config.data.steps} batches is less than one step of "
        f"train.accumulate={config.train.accumulate}: take fewer parts"
    )
