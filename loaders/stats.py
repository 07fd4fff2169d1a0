"""Loader statistics: items and busy time of every stage, and the stage that limits the speed.

A lane, for example a thread, does one piece of work at a time. A crew is a set of lanes that share
the same stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from patchmill.loaders import advice
from patchmill.loaders.advice import Facts
from patchmill.loaders.decoded.cache_stats import CacheStats

NOTHING_VARIES: Mapping[str, tuple[int, float]] = {}


@dataclass(frozen=True)
class Stage:
    """Work of one stage, such as decode, over all its lanes."""

    items: int
    seconds: float  # busy time, summed over the lanes
    lanes: int
    occupancy: float  # share of the lanes' time
    crew: str  # name of the set of lanes, shared with the crew's other stages

    @property
    def items_per_s(self) -> float:
        """Throughput of one lane that does nothing else."""
        return self.items / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Stats:
    """Statistics of a loader since it was built."""

    stages: dict[str, Stage]
    workers: int
    seconds: float  # wall time spent inside iterations
    waited: float  # of `seconds`, time the training loop waited for a batch
    bad: int  # samples that could not be read and were replaced
    unmasked: int = 0  # samples to be pasted that had no usable mask
    cache: CacheStats | None = None  # None: the loader has no decoded cache
    idle: float = 0.0  # share of the workers' time without a task
    facts: Facts = field(default_factory=Facts)  # further inputs of the advice

    @property
    def wait_share(self) -> float:
        return self.waited / self.seconds if self.seconds else 0.0

    @property
    def bottleneck(self) -> str:
        """The slowest stage of the busiest crew, or the training loop if it hardly ever waits."""
        if self.wait_share < 0.02:
            return "training loop"
        busy: dict[str, float] = {}
        for stage in self.stages.values():
            busy[stage.crew] = busy.get(stage.crew, 0.0) + stage.occupancy
        busiest = max(busy, key=lambda crew: busy[crew])
        stages = {name: stage for name, stage in self.stages.items() if stage.crew == busiest}
        return max(stages, key=lambda name: stages[name].seconds)

    @property
    def advice(self) -> str:
        """One sentence that names the bottleneck and the settings that would move it."""
        return advice.sentence(self)

    def plain(self) -> dict[str, Any]:
        """All figures as plain data, for files."""
        return {**asdict(self), "wait_share": self.wait_share, "bottleneck": self.bottleneck}

    def __str__(self) -> str:
        lines = [f"{'stage':8} {'items':>9} {'items/s/lane':>15} {'lanes':>6} {'occupancy':>10}"]
        for name, stage in self.stages.items():
            lines.append(
                f"{name:8} {stage.items:9,} {stage.items_per_s:15,.0f} {stage.lanes:6} "
                f"{stage.occupancy:10.1%}"
            )
        lines.append(
            f"{self.workers} workers, waited {self.wait_share:.1%} of {self.seconds:.1f} s, "
            f"{self.bad} bad samples; "
            + (f"{self.unmasked} times no usable mask; " if self.unmasked else "")
            + f"bottleneck: {self.bottleneck}"
        )
        if self.cache is not None:
            lines.append(str(self.cache))
        lines.append(self.advice)
        return "\n".join(lines)


class Counters:
    """Running totals of one lane: busy nanoseconds and items of each of its stages."""

    def __init__(self, stages: Sequence[str]) -> None:
        self.nanoseconds = dict.fromkeys(stages, 0)
        self.items = dict.fromkeys(stages, 0)
        self.unmasked = 0  # samples to be pasted that had no usable mask
        self.hits = 0  # images that were in the decoded cache
        self.busy_ns = 0  # in tasks: stages and the time between them
        self.cpu_ns = 0  # CPU time of `busy_ns`; counted only while a loader is being tuned

    def add(self, stage: str, nanoseconds: int, items: int = 1) -> None:
        self.nanoseconds[stage] += nanoseconds
        self.items[stage] += items


def collect(
    crews: Mapping[str, Sequence[Counters]],
    seconds: float,
    varying: Mapping[str, tuple[int, float]] = NOTHING_VARIES,
) -> dict[str, Stage]:
    """Sum up the stages of all crews; `crews` maps their names to the counters of their lanes.

    `varying` holds crews whose number of lanes changes: their current number, and their lifetime in
    seconds, summed over the lanes.
    """
    stages = {}
    for crew, lanes in crews.items():
        count, present = varying.get(crew, (len(lanes), seconds * len(lanes)))
        total = max(present, 1e-9)
        for name in lanes[0].items:
            items = sum(lane.items[name] for lane in lanes)
            busy = sum(lane.nanoseconds[name] for lane in lanes) / 1e9
            stages[name] = Stage(items, busy, count, min(busy / total, 1.0), crew)
    return stages
