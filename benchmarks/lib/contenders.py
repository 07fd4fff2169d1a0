"""What is measured: our decoder, our views, our loader, and other people's loaders.

A contender stays open from its first turn to its last, so that each compiles and starts its workers
once. Between its turns it fills its queues and falls still; in its turn, what it had made before is
thrown away first, so that only images made in a turn count in it. On a GPU, a turn ends when the
GPU is through with it, and nobody waits for the GPU before that unless the library makes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import machine, timing
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import Advance, track
from patchmill.loaders.decode.decoder import Decoder
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.stats import Stage

if TYPE_CHECKING:
    from patchmill.loaders.loader import Loader

_KEPT_SAMPLES = 8  # memory for the views of so many images is written again and again

Work = Callable[[bytes], Any]
Turns = list[float]  # images per second, by round


class Contender(Protocol):
    name: str
    stage: str
    workers: int

    def open(self) -> None:
        """Start; whatever is slow only once happens here."""
        ...

    def measure(self, seconds: float) -> float:
        """Images per second, over at least so many seconds."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Raced:
    """By contender, and by round where it has turns."""

    rates: dict[str, Turns]
    cores: dict[str, Turns] = field(default_factory=dict)  # that were busy, of whomever's work
    gpu: dict[str, int] = field(default_factory=dict)  # bytes that it made its GPU's memory shrink
    failed: dict[str, str] = field(default_factory=dict)  # why it could not start
    taken: int = 0  # bytes of the GPU's memory, when all had had their turns


def race(
    ours: Sequence[Contender], theirs: Sequence[Contender], rounds: int, seconds: float
) -> Raced:
    """All contenders' turns of so many seconds; some of theirs may fail to start."""
    found = Raced({})
    steps = (len(ours) + len(theirs)) * (1 + rounds)
    with ExitStack() as opened, track("measuring", steps) as advance:
        for contender in (*theirs, *ours):  # ours start threads, some of theirs fork
            try:
                opened.callback(contender.close)
                _open(contender, found)
            except Exception as error:
                if contender in ours:
                    raise
                found.failed[contender.name] = str(error).splitlines()[0]
            advance(1)
        racing = [x for x in (*ours, *theirs) if x.name not in found.failed]
        turns = {x.name: partial(_turn, x, seconds, found, advance) for x in racing}
        found.rates.update(timing.interleave(turns, rounds))
        return replace(found, taken=machine.gpu_taken())


def _open(contender: Contender, found: Raced) -> None:
    machine.free_gpu_cache()
    before = machine.gpu_taken()
    contender.open()
    timing.finish_gpu()
    found.gpu[contender.name] = machine.gpu_taken() - before


def _turn(contender: Contender, seconds: float, found: Raced, advance: Advance) -> float:
    timing.wait_until_quiet()
    timing.finish_gpu()
    memory, busy = machine.gpu_taken(), timing.processor_seconds()
    began = time.perf_counter()
    rate = contender.measure(seconds)
    cores = (timing.processor_seconds() - busy) / (time.perf_counter() - began)
    found.cores.setdefault(contender.name, []).append(cores)
    found.gpu[contender.name] += machine.gpu_taken() - memory
    advance(1)
    return rate


# --------------------------------------------------------------------------------- without a loader


class Threads:
    """Threads that each work through encoded images in memory: no files, no queue."""

    def __init__(
        self, name: str, stage: str, tool: Callable[[], Work], images: Sequence[bytes], workers: int
    ) -> None:
        self.name, self.stage, self.workers = name, stage, workers
        self._images = images
        self._tools = [tool() for _ in range(workers)]
        self._pool = ThreadPoolExecutor(workers)

    def open(self) -> None:
        for work in self._tools:
            work(self._images[0])

    def measure(self, seconds: float) -> float:
        stop = threading.Event()
        runs = [self._pool.submit(self._run, number, stop) for number in range(self.workers)]
        try:
            time.sleep(seconds)
        finally:
            stop.set()
        return sum(run.result() for run in runs)

    def _run(self, number: int, stop: threading.Event) -> float:
        work, images = self._tools[number], self._images
        first = number * len(images) // self.workers
        done, began = 0, time.perf_counter()
        while not (done and stop.is_set()):  # one at least, however short the turn
            work(images[(first + done) % len(images)])
            done += 1
        return done / (time.perf_counter() - began)

    def close(self) -> None:
        self._pool.shutdown()


class Views:
    """One thread's tools to decode an image and make its views, as in the threads pipeline."""

    def __init__(self, recipe: Recipe) -> None:
        targets = draw.targets(recipe)
        self._laws = draw.law_table(recipe)
        self._rows = np.zeros(len(self._laws), ROW)
        self._slots = render.slots(targets, _KEPT_SAMPLES, as_bytes=False)
        self._largest = max(target.size for target in targets)
        self.out = np.zeros(render.elements(targets, _KEPT_SAMPLES), np.float32)
        self._decode, self._scratch, self._id = Decoder(), render.Scratch(), 0

    def __call__(self, data: bytes) -> None:
        image = self._decode(data)
        height, width, _ = image.shape
        draw.draw_into(self._laws, np.uint64(0), 0, self._id, height, width, self._rows)
        pool = self._scratch.reserve(height, width, self._largest)
        sample = self._id % _KEPT_SAMPLES
        render.render_image(image, self._rows, self._slots, sample, False, False, self.out, pool)
        self._id += 1


# ------------------------------------------------------------------------------------------ loaders


class Batches:
    """A loader. Up to `ahead` batches lie ready in its queues, and it makes `together` at once."""

    def __init__(
        self,
        name: str,
        start: Callable[[], peers.Batches],
        batch_size: int,
        workers: int,
        *,
        ahead: int,
        together: int = 1,
        stage: str = "loader",
    ) -> None:
        self.name, self.stage, self.workers = name, stage, workers
        self._start, self._batch_size = start, batch_size
        self._ahead, self._together = ahead, together
        self._batches: peers.Batches | None = None

    def open(self) -> None:
        self._batches = self._start()
        next(self._batches)

    def measure(self, seconds: float) -> float:
        self._take(self._ahead + self._together)
        timing.finish_gpu()
        images, began = 0, time.perf_counter()
        while not images or time.perf_counter() - began < seconds:
            self._take(self._together)  # all of them: what is in the time must be in the count
            images += self._together * self._batch_size
        timing.finish_gpu()
        return images / (time.perf_counter() - began)

    def _take(self, count: int) -> None:
        for _ in range(count):
            next(cast(peers.Batches, self._batches))

    def close(self) -> None:
        if self._batches:
            self._batches.close()


class OurLoader(Batches):
    """Also keeps what each stage of the loader did in each turn."""

    def __init__(self, loader: Loader, batch_size: int, workers: int) -> None:
        super().__init__("loader", lambda: _forever(loader), batch_size, workers, ahead=3)
        self.loader = loader
        self.turns: list[dict[str, Stage]] = []

    def measure(self, seconds: float) -> float:
        before = self.loader.stats().stages
        rate = super().measure(seconds)
        after = self.loader.stats().stages
        self.turns.append({name: _between(before[name], after[name]) for name in after})
        return rate


def _between(before: Stage, after: Stage) -> Stage:
    return replace(after, items=after.items - before.items, seconds=after.seconds - before.seconds)


def _forever(loader: Loader) -> peers.Batches:
    while True:
        yield from loader


# By peer: batches that lie ready, and that are made at once, with so many workers.
_QUEUES: dict[str, Callable[[int], tuple[int, int]]] = {
    "torchvision": lambda workers: (2 * workers, workers),  # each worker makes whole batches
    "dali": lambda workers: (3, 1),
    "ffcv": lambda workers: (5, 1),
}


def their_loader(
    name: str, paths: list[str], recipe: Recipe, batch_size: int, workers: int, device: str = "cpu"
) -> Batches:
    peer = peers.load(name)
    ahead, together = _QUEUES.get(name, lambda workers: (0, 1))(workers)

    def start() -> peers.Batches:
        if reason := peer.DEVICES[device.partition(":")[0]] or peer.available():
            raise MillError(reason)
        return peer.open(paths, recipe, workers, batch_size, device)

    return Batches(name, start, batch_size, workers, ahead=ahead, together=together)
