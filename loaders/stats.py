"""Where the time goes: each stage counts its work, so that the bottleneck names itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STAGES = ("read", "decode", "plan", "render")


@dataclass(frozen=True)
class Stage:
    items: int
    seconds: float  # of thread time
    occupancy: float  # share of all threads' time

    @property
    def items_per_s(self) -> float:
        """What one thread does when it does nothing else."""
        return self.items / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Stats:
    """A loader's work since it was built."""

    stages: dict[str, Stage]
    workers: int
    seconds: float  # wall time spent inside iterations
    waited: float  # of which the training loop waited for a batch
    bad: int  # samples that were replaced

    @property
    def wait_share(self) -> float:
        return self.waited / self.seconds if self.seconds else 0.0

    @property
    def bottleneck(self) -> str:
        """The slowest stage where the training loop waits for data; else the training loop."""
        if self.wait_share < 0.02:
            return "training loop"
        return max(self.stages, key=lambda name: self.stages[name].seconds)

    def __str__(self) -> str:
        lines = [f"{'stage':8} {'items':>9} {'items/s/thread':>15} {'occupancy':>10}"]
        for name, stage in self.stages.items():
            lines.append(
                f"{name:8} {stage.items:9,} {stage.items_per_s:15,.0f} {stage.occupancy:10.1%}"
            )
        lines.append(
            f"{self.workers} workers, waited {self.wait_share:.1%} of {self.seconds:.1f} s, "
            f"{self.bad} bad samples; bottleneck: {self.bottleneck}"
        )
        return "\n".join(lines)


class Counters:
    """One thread's running totals: nanoseconds by stage, and images."""

    def __init__(self) -> None:
        self.nanoseconds = [0] * len(STAGES)
        self.items = 0

    def add(self, stamps: Sequence[int]) -> None:
        """Time stamps before, between and after the stages of one image."""
        for i in range(len(STAGES)):
            self.nanoseconds[i] += stamps[i + 1] - stamps[i]
        self.items += 1


def collect(counters: Sequence[Counters], seconds: float, waited: float, bad: int) -> Stats:
    items = sum(counter.items for counter in counters)
    total = max(seconds * len(counters), 1e-9)
    stages = {}
    for i, name in enumerate(STAGES):
        busy = sum(counter.nanoseconds[i] for counter in counters) / 1e9
        stages[name] = Stage(items, busy, min(busy / total, 1.0))
    return Stats(stages, len(counters), seconds, waited, bad)
