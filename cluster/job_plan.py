"""Compute the figures of a training job before it is queued: batches, steps, hours, warnings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchmill.cluster.resources import Resources, limit_minutes
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_data
from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.training import data, expected_hours, measurements
from patchmill.training.config.settings import Config
from patchmill.training.expected_hours import Expected
from patchmill.training.optim import schedules

LOADER_ROW = "loader"  # row of a throughput file: an upper bound on the speed of training


@dataclass(frozen=True)
class LoaderRate:
    """The loader's speed as measured by benchmarks/throughput.py."""

    images_per_s: float
    workers: int | None  # of the measured loader; None if the file does not say
    on_gpu: bool

    def of_node(self, tasks: int, workers: int) -> float:
        """Images/s of `tasks` processes with `workers` each, without slowing each other down."""
        if self.on_gpu:
            return self.images_per_s * tasks
        if not self.workers:
            return self.images_per_s
        return self.images_per_s * tasks * workers / self.workers

    def __str__(self) -> str:
        if self.on_gpu:
            return f"measured: {self.images_per_s:,.0f} for a GPU"
        unit = {None: "a node", 1: "a worker"}.get(self.workers, f"{self.workers} workers")
        return f"measured: {self.images_per_s:,.0f} for {unit}"


@dataclass(frozen=True)
class JobPlan:
    """One run of a job in figures; `str` is the table that submit.py prints."""

    config: Config
    needs: Resources
    samples: int | None  # in an epoch; None for streamed shards, which are not counted
    steps: int  # in an epoch
    micro_batch: int  # images of one rank in each of a step's train.accumulate micro-batches
    loader_rate: LoaderRate | None
    expected: Expected

    @property
    def ranks(self) -> int:
        return self.needs.nodes * self.needs.tasks

    @property
    def images_per_rank(self) -> int:
        """Images that a rank loads in an epoch."""
        return self.steps * self.micro_batch * self.config.train.accumulate

    @property
    def workers(self) -> int:
        """Loading threads of a rank."""
        return self.config.train.threads(self.needs.cpus_per_task)

    @property
    def images_per_s(self) -> float | None:
        """Images/s of all loaders together, if measured."""
        if self.loader_rate is None:
            return None
        return self.loader_rate.of_node(self.needs.tasks, self.workers) * self.needs.nodes

    @property
    def hours(self) -> float | None:
        """Lower bound on the run's hours, from the loaders' speed."""
        train, rate = self.config.train, self.images_per_s
        return self.steps * train.batch_size * train.epochs / rate / 3600 if rate else None

    @property
    def most_hours(self) -> float:
        """The larger of the expected hours and the lower bound; 0 if neither is known."""
        return max(self.expected.hours or 0, self.hours or 0)

    def __str__(self) -> str:
        return "\n".join(f"{name:<16} {text}" for name, text in self.rows())

    def rows(self) -> Iterator[tuple[str, str]]:
        train = self.config.train
        parts = f" in {train.accumulate} parts" if train.accumulate > 1 else ""
        yield (
            "trains",
            f"{self.config.method_name}: {self.config.model.name}, {self.config.size} pixels",
        )
        yield "ranks", f"{self.needs.nodes} x {self.needs.tasks} = {self.ranks}"
        yield "global batch", f"{train.batch_size:,}"
        yield "batch of a rank", f"{self.micro_batch * train.accumulate:,}{parts}"
        yield "learning rate", self._learning_rate_text()
        per_rank = f"a rank sees {self.images_per_rank:,} an epoch"
        yield (
            "samples",
            f"{self.samples:,}, of which {per_rank}" if self.samples else (f"streamed; {per_rank}"),
        )
        total = self.steps * train.epochs
        yield "steps", f"{self.steps:,} x {train.epochs} epochs = {total:,}"
        yield "hours", self._hours_text()

    def _learning_rate_text(self) -> str:
        optim, batch = self.config.optim, self.config.train.batch_size
        text = f"{schedules.peak_lr(optim, batch):g} at its peak"
        if optim.scaled:
            text += f" = {optim.lr:g} x {batch:,} / 256"
        if optim.warmup:
            text += f", after {optim.warmup:g} epoch{'s' * (optim.warmup != 1)} of warm-up"
        return text

    def _hours_text(self) -> str:
        texts = [f"{self.expected}"]
        if self.hours is not None:
            texts.append(
                f"{_short(self.hours)} or more: loading {self.images_per_s:,.0f} images/s is a "
                f"limit ({self.loader_rate})"
            )
        elif self.expected.hours is None:
            texts.append(
                "for a lower bound by a node's loader: patchmill bench throughput --json "
                "FILE, then --throughput FILE"
            )
        starts = math.ceil(self.most_hours * 60 / limit_minutes(self.needs.time))
        if starts > 1 and self.needs.requeue:
            texts.append(f"{starts} times {self.needs.time}")
        return "; ".join(texts)

    def warnings(self) -> list[str]:
        """Warnings about settings that work, but perhaps not as intended."""
        warnings = []
        source, needs = open_data(self.config.data.train), self.needs
        if isinstance(source, StreamSource) and (rest := len(source.stream.urls) % self.ranks):
            few = len(source.stream.urls) // self.ranks
            warnings.append(
                f"{len(source.stream.urls)} streamed shards do not divide evenly among "
                f"{self.ranks} ranks: {rest} of them read {few + 1}, the others {few}, whose "
                f"samples repeat more often; make a multiple of {self.ranks} shards"
            )
        if self.workers > needs.cpus_per_task:
            warnings.append(
                f"train.workers={self.workers} share the {needs.cpus_per_task} cores of a process: "
                f"ask for more with --cpus-per-task {self.workers}"
            )
        if not needs.requeue and self.most_hours * 60 > limit_minutes(needs.time):
            warnings.append(
                f"the run takes about {_short(self.most_hours)} hours or more, but the job ends "
                f"after {needs.time} and is not requeued: ask for more --time"
            )
        return warnings


def make(
    config: Config,
    needs: Resources,
    throughput: str | None = None,
    *,
    here: bool = False,
    overrides: Sequence[str] = (),
) -> JobPlan:
    """Plan one run; raise a MillError if its batch does not divide or its data cannot be opened.

    `here` is for a run on this machine; `overrides` are those on the command line.
    """
    micro_batch = data.local_batch_size(config, needs.nodes * needs.tasks)
    source = open_data(config.data.train)
    samples = source.sample_count
    data.check_sample_count(source, config)
    steps = expected_hours.steps_per_epoch(config, samples)
    loader_rate = read_loader_rate(Path(throughput)) if throughput else None
    if here:
        device = expected_hours.this_device(config)
    else:
        on_gpus = needs.gpus_per_node and config.train.device != "cpu"
        device = measurements.A_GPU if on_gpus else measurements.A_CPU
    ranks = needs.nodes * needs.tasks
    expected = expected_hours.expect(config, ranks, device, overrides)
    return JobPlan(config, needs, samples, steps, micro_batch, loader_rate, expected)


def table(plans: Sequence[JobPlan]) -> str:
    """Table of a job's runs: rows common to all runs once, other rows once per distinct value."""
    lines = []
    for row in zip(*(plan.rows() for plan in plans), strict=True):
        (name, first), texts = row[0], [text for _, text in row]
        if texts.count(first) == len(texts):
            lines.append(f"{name:<16} {first}")
            continue
        for text in dict.fromkeys(texts):
            runs = [p.config.name for p, other in zip(plans, texts, strict=True) if other == text]
            which = runs[0] if len(runs) == 1 else f"{len(runs)} runs, such as {runs[0]}"
            lines.append(f"{name:<16} {text} [{which}]")
    return "\n".join(lines)


def read_loader_rate(path: Path) -> LoaderRate:
    """Read a file of benchmarks/throughput.py --json."""
    try:
        content = json.loads(path.read_text())
        row = next(row for row in content["rows"] if row["name"] == LOADER_ROW)
        on_gpu = str(content.get("device", "")).startswith("cuda")
        return LoaderRate(float(row["images_per_s"]), row.get("workers"), on_gpu)
    except OSError as error:
        raise MillError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, StopIteration, AttributeError):
        raise MillError(
            f"{path} has no throughput of a {LOADER_ROW}: make one with python "
            "benchmarks/throughput.py --json FILE"
        ) from None


def _short(hours: float) -> str:
    return f"{hours:,.3g}" if hours >= 0.01 else "less than 0.01"
