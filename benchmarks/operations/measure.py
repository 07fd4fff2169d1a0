"""Contenders of a case take turns; what each takes in time, and in memory beside what it is given
and asked for."""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from patchmill.benchmarks.lib import timing
from patchmill.benchmarks.lib.timing import Summary
from patchmill.benchmarks.operations.case import COMPILED, EAGER, Case, Run

TURN = 0.2  # seconds that a turn takes at least, of as many runs as it takes


@dataclass(frozen=True)
class Rates:
    """What this device does at best, per second, as measured by the simplest program."""

    bandwidth: float  # bytes read and written by a copy
    products: Mapping[torch.dtype, float]  # operations of a large product of matrices


@dataclass(frozen=True)
class Figure:
    contender: str
    seconds: Summary
    speedup: Summary  # eager's time over this one's, round by round
    mebibytes: float  # at the peak, beside inputs and results


def measure(case: Case, device: torch.device, rounds: int) -> tuple[list[Figure], list[str]]:
    """The figures, and why a contender is left out."""
    alive, notes = dict(case.contenders), []
    for name, run in case.contenders.items():
        try:
            for _ in range(3):
                run()
        except Exception as error:
            if name != COMPILED:
                raise
            notes.append(f"{case.operation}: torch.compile fails ({type(error).__name__})")
            del alive[name]
    memory = {name: peak(run, device) for name, run in alive.items()}
    turns = {
        name: partial(_turn, run, _repeats(run, device), device) for name, run in alive.items()
    }
    seconds = timing.interleave(turns, rounds)
    figures = [
        Figure(name, timing.summary(its), timing.ratio(seconds[EAGER], its), memory[name] / 2**20)
        for name, its in seconds.items()
    ]
    return figures, notes


def rates(device: torch.device) -> Rates:
    """By a copy and by products of matrices."""
    here = torch.empty(2**26, device=device)
    there = torch.empty_like(here)
    copied = min(_seconds(lambda: there.copy_(here), 3, device) for _ in range(5))
    side = 8192 if device.type == "cuda" else 2048
    kinds = (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,)
    products = {}
    for dtype in kinds:
        a = torch.randn(side, side, device=device).to(dtype)
        taken = min(_seconds(partial(torch.mm, a, a), 2, device) for _ in range(5))
        products[dtype] = 2 * side**3 / taken
    return Rates(2 * here.numel() * here.element_size() / copied, products)


def _repeats(run: Run, device: torch.device) -> int:
    return max(1, round(TURN / max(_seconds(run, 1, device), 1e-6)))


def _turn(run: Run, repeats: int, device: torch.device) -> float:
    return _seconds(run, repeats, device)


def _seconds(run: Run, repeats: int, device: torch.device) -> float:
    """Of one run, by the clock of the device."""
    if device.type == "cuda":
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        began.record()
        for _ in range(repeats):
            run()
        ended.record()
        torch.cuda.synchronize(device)
        return began.elapsed_time(ended) / 1e3 / repeats
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


# ----------------------------------------------------------------------------------------- memory


def peak(run: Run, device: torch.device) -> float:
    """Bytes that one run has beside what was there before and what it gives: of the GPU, or of this
    process.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        made = _bytes(run())
        torch.cuda.synchronize(device)
        return max(0, torch.cuda.max_memory_allocated(device) - before - made)
    ctypes.CDLL(None).malloc_trim(0)  # so that what was freed counts again when it is taken
    before = _kibibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    made = _bytes(run())
    return max(0, (_kibibytes("VmHWM") - before) * 1024 - made)


def _bytes(made: object) -> int:
    """Of the tensors that a run gives: one, or several."""
    tensors = [made] if isinstance(made, torch.Tensor) else made
    return sum(it.nbytes for it in tensors) if isinstance(tensors, (list, tuple)) else 0


def _kibibytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return int(found[1]) if found else 0
