"""Contenders of the throughput benchmark, and measuring them in turns.

A contender stays open from its first turn to its last, so it compiles and starts its workers only
once. Between turns it fills its queues and goes idle; each turn first discards what is already
queued, so only images made during the turn count. On a GPU, a turn ends when the GPU has finished;
there is no earlier synchronisation unless the library does it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import machine, timing
from patchmill.benchmarks.lib.throughput.batches import BatchContender, Making
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.common.progress import Advance, track
from patchmill.loaders.decode.decoder import Decoder
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.stats import Stage

if TYPE_CHECKING:
    from patchmill.loaders.loader import Loader

_OUTPUT_SAMPLES = 8  # images whose output memory is overwritten repeatedly

DECODER = "simplejpeg"  # of ours, on a CPU
BARE = Making(DECODER)
CACHED = "loader, cached"  # from its second epoch on

ImageFunction = Callable[[bytes], Any]
Rates = list[float]  # images per second, by round


class Contender(Protocol):
    name: str
    stage: str
    workers: int
    making: Making

    def open(self) -> None:
        """Start workers, compile, and do everything else that is slow only the first time."""
        ...

    def measure(self, seconds: float) -> float:
        """Images per second, over at least this many seconds."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Measurements:
    """Results by contender; lists are by round."""

    rates: dict[str, Rates]
    cores: dict[str, list[float]] = field(default_factory=dict)  # CPU cores busy during its turns
    gpu_bytes: dict[str, int] = field(default_factory=dict)  # GPU memory allocated by it
    failures: dict[str, str] = field(default_factory=dict)  # why it could not start
    gpu_bytes_total: int = 0  # GPU memory in use after the last turn


def measure_in_turns(
    required: Sequence[Contender], optional: Sequence[Contender], rounds: int, seconds: float
) -> Measurements:
    """Measure every contender for `seconds` in each round; optional ones may fail to start."""
    results = Measurements({})
    steps = (len(required) + len(optional)) * (1 + rounds)
    with ExitStack() as opened, track("measuring", steps) as advance:
        for contender in (*optional, *required):  # ours start threads, and peers may fork
            try:
                opened.callback(contender.close)
                _open(contender, results)
            except Exception as error:
                if contender in required:
                    raise
                results.failures[contender.name] = str(error).splitlines()[0]
            advance(1)
        running = [x for x in (*required, *optional) if x.name not in results.failures]
        turns = {x.name: partial(_turn, x, seconds, results, advance) for x in running}
        results.rates.update(timing.interleave(turns, rounds))
        return replace(results, gpu_bytes_total=machine.gpu_memory_used())


def _open(contender: Contender, results: Measurements) -> None:
    machine.free_gpu_cache()
    before = machine.gpu_memory_used()
    contender.open()
    timing.synchronize_gpu()
    results.gpu_bytes[contender.name] = machine.gpu_memory_used() - before


def _turn(contender: Contender, seconds: float, results: Measurements, advance: Advance) -> float:
    timing.wait_until_idle()
    timing.synchronize_gpu()
    gpu_bytes, cpu_seconds = machine.gpu_memory_used(), timing.cpu_seconds()
    start = time.perf_counter()
    rate = contender.measure(seconds)
    cores = (timing.cpu_seconds() - cpu_seconds) / (time.perf_counter() - start)
    results.cores.setdefault(contender.name, []).append(cores)
    results.gpu_bytes[contender.name] += machine.gpu_memory_used() - gpu_bytes
    advance(1)
    return rate


# --------------------------------------------------------------------------------- without a loader


class ThreadedContender:
    """Threads that each apply their own function to encoded images in memory."""

    def __init__(
        self,
        name: str,
        stage: str,
        make_function: Callable[[], ImageFunction],
        images: Sequence[bytes],
        workers: int,
        making: Making = BARE,
    ) -> None:
        self.name, self.stage, self.workers, self.making = name, stage, workers, making
        self._images = images
        self._functions = [make_function() for _ in range(workers)]
        self._pool = ThreadPoolExecutor(workers)

    def open(self) -> None:
        for function in self._functions:
            function(self._images[0])

    def measure(self, seconds: float) -> float:
        stop = threading.Event()
        rates = [self._pool.submit(self._run, number, stop) for number in range(self.workers)]
        try:
            time.sleep(seconds)
        finally:
            stop.set()
        return sum(rate.result() for rate in rates)

    def _run(self, number: int, stop: threading.Event) -> float:
        function, images = self._functions[number], self._images
        first = number * len(images) // self.workers
        done, start = 0, time.perf_counter()
        while not (done and stop.is_set()):  # at least one image, however short the turn
            function(images[(first + done) % len(images)])
            done += 1
        return done / (time.perf_counter() - start)

    def close(self) -> None:
        self._pool.shutdown()


class DecodeAndRender:
    """Decode an image and render its views, as in one thread of the threads pipeline."""

    def __init__(self, recipe: Recipe) -> None:
        targets = draw.targets(recipe)
        self._laws = draw.law_table(recipe)
        self._rows = np.zeros(len(self._laws), ROW)
        self._slots = render.slots(targets, _OUTPUT_SAMPLES, as_bytes=False)
        self._largest = max(target.size for target in targets)
        self.out = np.zeros(render.elements(targets, _OUTPUT_SAMPLES), np.float32)
        self._decode, self._scratch, self._id = Decoder(), render.Scratch(), 0

    def __call__(self, data: bytes) -> None:
        image = self._decode(data)
        height, width, _ = image.shape
        draw.draw_into(self._laws, np.uint64(0), 0, self._id, height, width, self._rows)
        pool = self._scratch.reserve(height, width, self._largest)
        sample = self._id % _OUTPUT_SAMPLES
        render.render_image(image, self._rows, self._slots, sample, False, False, self.out, pool)
        self._id += 1


# ------------------------------------------------------------------------------------------ loaders


class LoaderContender(BatchContender):
    """Our loader; also records the work of each of its stages in each turn."""

    def __init__(self, loader: Loader, batch_size: int, workers: int, name: str = "loader") -> None:
        making = Making("DALI" if loader.pipeline.name == "dali" else DECODER, antialiased=True)
        super().__init__(
            name, lambda: _endless(loader), batch_size, workers, ahead=3, making=making
        )
        self.loader = loader
        self.stages_by_turn: list[dict[str, Stage]] = []

    def measure(self, seconds: float) -> float:
        before = self.loader.stats().stages
        rate = super().measure(seconds)
        after = self.loader.stats().stages
        self.stages_by_turn.append({name: _difference(before[name], after[name]) for name in after})
        return rate


class CachedContender(LoaderContender):
    """Our loader from its second epoch on, after the first has filled its cache."""

    def __init__(self, loader: Loader, batch_size: int, workers: int) -> None:
        super().__init__(loader, batch_size, workers, CACHED)
        self.making = Making("none", antialiased=True)

    def open(self) -> None:
        for _ in self.loader:
            pass
        super().open()

    def close(self) -> None:
        super().close()
        self.loader.close()


def _difference(before: Stage, after: Stage) -> Stage:
    return replace(after, items=after.items - before.items, seconds=after.seconds - before.seconds)


def _endless(loader: Loader) -> peers.Batches:
    while True:
        yield from loader
