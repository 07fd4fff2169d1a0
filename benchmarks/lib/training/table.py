"""Results of the training benchmark: tables, JSON and chart rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchmill.benchmarks.lib import printing, report, timing
from patchmill.benchmarks.lib.timing import Summary
from patchmill.benchmarks.lib.training import gpu_waits
from patchmill.benchmarks.lib.training.feeds import CEILING
from patchmill.benchmarks.lib.training.steps import PARTS, TurnResult

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class TrainingResult:
    turns: dict[str, list[TurnResult]]  # of each feed, round by round
    steps: int  # counted in a turn
    rounds: int
    workers: int  # of each feed that makes views
    threads: int  # of torch
    other_cores: float  # kept busy by other programs
    memory: dict[str, int]  # in MiB
    notes: list[str]  # what peers do differently
    gpu_waits: dict[str, int] | None = None  # line of code -> waits in STEPS steps; None on a CPU

    @property
    def gpu_waits_per_step(self) -> float:
        return sum((self.gpu_waits or {}).values()) / gpu_waits.STEPS

    def rates(self, name: str) -> list[float]:
        return [turn.images_per_s for turn in self.turns[name]]

    def rate(self, name: str) -> Summary:
        return timing.summary(self.rates(name))

    def of_ceiling(self, name: str) -> Summary:
        return timing.ratio(self.rates(name), self.rates(CEILING))

    def wait(self, name: str) -> float:
        return statistics.median(turn.wait for turn in self.turns[name])

    def cores(self, name: str) -> float:
        return statistics.median(turn.cores for turn in self.turns[name])

    def milliseconds(self, name: str) -> dict[str, float]:
        """Median milliseconds of a step by part."""
        turns = self.turns[name]
        return {
            part: 1e3 * statistics.median(turn.seconds[part] for turn in turns) for part in PARTS
        }

    def gpu_mebibytes(self, name: str) -> int:
        return max(turn.gpu_bytes for turn in self.turns[name]) >> 20

    def as_json(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "rounds": self.rounds,
            "workers": self.workers,
            "torch_threads": self.threads,
            "cores_busy_with_others": round(self.other_cores, 2),
            "rows": [self._row(name) for name in self.turns],
            "memory_mib": self.memory,
            "notes": self.notes,
            **self._waits(),
        }

    def _waits(self) -> dict[str, Any]:
        if self.gpu_waits is None:
            return {}
        return {"gpu_waits_per_step": self.gpu_waits_per_step, "gpu_waits": self.gpu_waits}

    def _row(self, name: str) -> dict[str, Any]:
        rate, share, gpu = self.rate(name), self.of_ceiling(name), self.gpu_mebibytes(name)
        return {
            "name": name,
            "images_per_s": round(rate.median, 1),
            "spread": round(rate.spread, 3),
            "of_ceiling": round(share.median, 3),
            "of_ceiling_spread": round(share.spread, 3),
            "wait": round(self.wait(name), 3),
            "cores_busy": round(self.cores(name), 2),
            "step_ms": {part: round(ms, 2) for part, ms in self.milliseconds(name).items()},
            **({"gpu_mib": gpu} if gpu else {}),
        }

    def chart_rows(self) -> list[report.Row]:
        return [
            report.Row(name, "training", self.rate(name), self.workers, share.median)
            for name, share in ((name, self.of_ceiling(name)) for name in self.turns)
        ]


def show(result: TrainingResult, headline: Sequence[str]) -> None:
    console = printing.console()
    workers = "1 worker" if result.workers == 1 else f"{result.workers} workers"
    settings = f"{result.steps} steps per round; {workers}, {result.threads} torch threads"
    for line in (*headline, settings):
        console.print(line, style="dim", markup=False)
    console.print()
    _print_rates(console, result)
    console.print()
    _print_step(console, result)
    console.print()
    memory = ", ".join(f"{name.replace('_', ' ')} {mib:,}" for name, mib in result.memory.items())
    console.print(f"memory in MiB: {memory}")
    console.print(f"other programs kept {result.other_cores:.1f} cores busy")
    if result.gpu_waits is not None:
        count, lines = result.gpu_waits_per_step, ", ".join(result.gpu_waits)
        console.print(f"calls that wait for the GPU, a step: {count:.1f} {lines}", markup=False)
    for note in result.notes:
        console.print(note, style="dim", markup=False)


def _print_rates(console: Console, result: TrainingResult) -> None:
    on_gpu = any(map(result.gpu_mebibytes, result.turns))
    columns = ["images/s", "low to high", "of the ceiling", "waits for data", "cores"]
    table = report.new_table("fed by", *columns, *(["GPU MiB"] if on_gpu else []))
    for name in result.turns:
        rate = result.rate(name)
        cells = [
            f"[bold]{rate.median:,.0f}[/]",
            f"{rate.low:,.0f} to {rate.high:,.0f}",
            f"{result.of_ceiling(name).median:.0%}",
            f"{result.wait(name):.1%}",
            f"{result.cores(name):.2f}",
        ]
        table.add_row(name, *cells, *([f"{result.gpu_mebibytes(name):,}"] if on_gpu else []))
    console.print(table)


def _print_step(console: Console, result: TrainingResult) -> None:
    table = report.new_table("a step, in ms", *PARTS)
    for name in result.turns:
        table.add_row(name, *(f"{ms:,.1f}" for ms in result.milliseconds(name).values()))
    console.print(table)
