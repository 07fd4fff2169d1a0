"""Time and extra memory of a case's contenders, interleaved."""

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

TURN = 0.2  # seconds of a turn, filled with as many runs as fit


@dataclass(frozen=True)
class Rates:
    """Peak rates of this device, per second, measured by a copy and a matrix product."""

    bandwidth: float  # bytes read and written by a copy
    products: Mapping[torch.dtype, float]  # operations of a large matrix product


@dataclass(frozen=True)
class Figure:
    contender: str
    seconds: Summary
    speedup: Summary  # eager's time divided by this one's, per round
    mebibytes: float  # peak memory beyond inputs and results


def measure(case: Case, device: torch.device, rounds: int) -> tuple[list[Figure], list[str]]:
    """Figures of all contenders, and notes on skipped ones."""
    working, notes = dict(case.contenders), []
    for name, run in case.contenders.items():
        try:
            for _ in range(3):
                run()
        except Exception as error:
            if name != COMPILED:
                raise
            notes.append(f"{case.operation}: torch.compile fails ({type(error).__name__})")
            del working[name]
    memory = {name: peak(run, device) for name, run in working.items()}
    turns = {
        name: partial(_turn, run, _repeats(run, device), device) for name, run in working.items()
    }
    seconds = timing.interleave(turns, rounds)
    figures = [
        Figure(name, timing.summary(own), timing.ratio(seconds[EAGER], own), memory[name] / 2**20)
        for name, own in seconds.items()
    ]
    return figures, notes


def rates(device: torch.device) -> Rates:
    """Measure the peak rates."""
    source = torch.empty(2**26, device=device)
    target = torch.empty_like(source)
    copy_seconds = min(_seconds(lambda: target.copy_(source), 3, device) for _ in range(5))
    side = 8192 if device.type == "cuda" else 2048
    kinds = (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,)
    products = {}
    for dtype in kinds:
        a = torch.randn(side, side, device=device).to(dtype)
        seconds = min(_seconds(partial(torch.mm, a, a), 2, device) for _ in range(5))
        products[dtype] = 2 * side**3 / seconds
    return Rates(2 * source.numel() * source.element_size() / copy_seconds, products)


def _repeats(run: Run, device: torch.device) -> int:
    return max(1, round(TURN / max(_seconds(run, 1, device), 1e-6)))


def _turn(run: Run, repeats: int, device: torch.device) -> float:
    return _seconds(run, repeats, device)


def _seconds(run: Run, repeats: int, device: torch.device) -> float:
    """Mean time of one run, by the device's clock."""
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
    """Peak bytes of one run beyond what was allocated before and its results: GPU, or process."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        returned = _bytes(run())
        torch.cuda.synchronize(device)
        return max(0, torch.cuda.max_memory_allocated(device) - before - returned)
    ctypes.CDLL(None).malloc_trim(0)  # so that freed memory counts again when it is reused
    before = _kibibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    returned = _bytes(run())
    return max(0, (_kibibytes("VmHWM") - before) * 1024 - returned)


def _bytes(result: object) -> int:
    """Bytes of the tensors that a run returns."""
    tensors = [result] if isinstance(result, torch.Tensor) else result
    return sum(tensor.nbytes for tensor in tensors) if isinstance(tensors, (list, tuple)) else 0


def _kibibytes(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return int(match[1]) if match else 0
