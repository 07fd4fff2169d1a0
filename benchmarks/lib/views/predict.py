"""Predict the time of the GPU renderer's stages from machine code, on machines without a GPU.

Assumptions. A launch takes as long as the busiest of five parts of the GPU; launches are
sequential, and each costs LAUNCH seconds more. Blocks spread evenly over the multiprocessors. Trip
counts of loops are computed from the rows, tile by tile. A quarter of the jitter loop runs in each
trip: one operation of four. Elsewhere all instructions count, even if branches skip them. A
multiprocessor

- issues one instruction per cycle on each of 4 schedulers, given enough warps: each of them issues
  at most every WARP_CYCLES cycles;
- serves 128 bytes of loads and stores per cycle, including shared memory, and at most one warp's
  instruction; bank conflicts and misaligned lines are not counted;
- runs a matrix product of 16 x 8 x 16 in HMMA_CYCLES (`mma` reaches 62 % of a Hopper's peak).

The L2 cache serves all bytes that blocks read and write. Memory serves the images and the batch
once, but not the planes, which stay in the cache if a chunk's do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from patchmill.benchmarks.lib.machine_code import occupancy
from patchmill.benchmarks.lib.machine_code.counting import Instruction, MachineCode
from patchmill.benchmarks.lib.views.work import Work

LAUNCH = 3e-6
WARP_CYCLES = 4
HMMA_CYCLES = 1.6


@dataclass(frozen=True)
class Chip:
    """Rates of a GPU per second."""

    name: str
    capability: int
    processors: int  # multiprocessors
    clock: float
    memory: float  # bytes, of a copy
    cache: float  # bytes, of the L2 cache

    def seconds(self, cycles: float) -> float:
        """Seconds of this many cycles in total, spread over the multiprocessors."""
        return cycles / (self.processors * self.clock)

    @property
    def filter_rate(self) -> float:
        """Multiply-adds of float16 on tensor cores."""
        return self.processors * self.clock * 2048

    @property
    def other_rate(self) -> float:
        """Float32 operations."""
        return self.processors * self.clock * 256


HOPPER = Chip("H200", 90, 132, 1.98e9, 4.3e12, 5.5e12)


@dataclass(frozen=True)
class Prediction:
    """Seconds of each part of the GPU for one stage's launches."""

    stage: str
    launches: int
    warps: int  # resident on a multiprocessor
    instructions: float  # of all warps
    parts: dict[str, float] = field(default_factory=dict)

    stages: Sequence[Prediction] = ()  # of which this is the sum

    @property
    def seconds(self) -> float:
        if self.stages:
            return sum(stage.seconds for stage in self.stages)
        return max(self.parts.values()) + LAUNCH * self.launches

    @property
    def limit(self) -> str:
        return max(self.parts, key=lambda name: self.parts[name])


def predict(
    stage: str,
    launches: int,
    code: MachineCode,
    shared: int,
    num_warps: int,
    work: Work,
    chip: Chip = HOPPER,
) -> Prediction:
    """Time of one stage's launches, which do this work in total."""
    bodies = [*code.nest, code.other_loops]
    weights = [work.blocks, *work.trips, work.other_trips]
    if len(bodies) != len(weights):
        raise ValueError(f"{stage} has {len(code.nest) - 1} nested loops, not {len(work.trips)}")

    def total(cost: Callable[[Instruction], float]) -> float:
        bodies_costs = [sum(map(cost, body)) for body in bodies]
        return num_warps * float(np.dot(weights, bodies_costs))

    warps = occupancy.warps(chip.capability, code.registers, shared, num_warps)
    instructions = total(lambda at: 1)
    issue_rate = min(occupancy.SCHEDULERS, warps / WARP_CYCLES)
    parts = {
        "issue": chip.seconds(instructions / issue_rate),
        "load/store": chip.seconds(total(_memory_cycles)),
        "tensor": chip.seconds(total(_tensor_cycles)),
        "cache": work.cache_bytes / chip.cache,
        "memory": work.memory_bytes / chip.memory,
    }
    return Prediction(stage, launches, warps, instructions, parts)


def combined(predictions: Sequence[Prediction]) -> Prediction:
    """All stages in sequence: parts are sums, and so is the time."""
    names = list(dict.fromkeys(name for each in predictions for name in each.parts))
    parts = {name: sum(each.parts[name] for each in predictions) for name in names}
    return Prediction(
        "all launches",
        sum(each.launches for each in predictions),
        min(each.warps for each in predictions),
        sum(each.instructions for each in predictions),
        parts,
        predictions,
    )


def _memory_cycles(at: Instruction) -> float:
    """Cycles in a multiprocessor's load/store units."""
    return max(1.0, at.width / 4) if at.kind in ("load", "store", "shared", "local") else 0.0


def _tensor_cycles(at: Instruction) -> float:
    if at.kind != "tensor":
        return 0.0
    return HMMA_CYCLES / 2 if ".1688" in at.opcode else HMMA_CYCLES
