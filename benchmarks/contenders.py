"""What is measured: our decoder, our views, our loader, and other people's loaders.

A contender stays open from its first turn to its last, so that each compiles and starts its workers
once. Between its turns it fills its queues and falls still; in its turn, what it had made before is
thrown away first, so that only images made in a turn count in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol, cast

import numpy as np

from patchmill.benchmarks import peers, timing
from patchmill.kernels.views import cpu
from patchmill.kernels.views.rows import ROW
from patchmill.loaders import plan
from patchmill.loaders.decode import Decoder
from patchmill.loaders.errors import MillError
from patchmill.loaders.pipelines.threads import Loader
from patchmill.loaders.progress import Advance, track
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.stats import Stage

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


def race(
    ours: Sequence[Contender], theirs: Sequence[Contender], rounds: int, seconds: float
) -> tuple[dict[str, Turns], dict[str, str]]:
    """All contenders' turns of so many seconds, and why some of theirs could not start."""
    failed: dict[str, str] = {}
    steps = (len(ours) + len(theirs)) * (1 + rounds)
    with ExitStack() as opened, track("measuring", steps) as advance:
        for contender in (*theirs, *ours):  # ours start threads, some of theirs fork
            try:
                opened.callback(contender.close)
                contender.open()
            except Exception as error:
                if contender in ours:
                    raise
                failed[contender.name] = str(error).splitlines()[0]
            advance(1)
        racing = [x for x in (*ours, *theirs) if x.name not in failed]
        turns = {x.name: partial(_turn, x, seconds, advance) for x in racing}
        return timing.interleave(turns, rounds), failed


def _turn(contender: Contender, seconds: float, advance: Advance) -> float:
    timing.wait_until_quiet()
    rate = contender.measure(seconds)
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
        while not stop.is_set():
            work(images[(first + done) % len(images)])
            done += 1
        return done / (time.perf_counter() - began)

    def close(self) -> None:
        self._pool.shutdown()


class Views:
    """One thread's tools to decode an image and make its views, as in the threads pipeline."""

    def __init__(self, recipe: Recipe) -> None:
        targets = plan.targets(recipe)
        self._laws = plan.laws(recipe)
        self._rows = np.zeros(len(self._laws), ROW)
        self._slots = cpu.slots(targets, _KEPT_SAMPLES, as_bytes=False)
        self._largest = max(target.size for target in targets)
        self.out = np.zeros(cpu.elements(targets, _KEPT_SAMPLES), np.float32)
        self._decode, self._scratch, self._id = Decoder(), cpu.Scratch(), 0

    def __call__(self, data: bytes) -> None:
        image = self._decode(data)
        height, width, _ = image.shape
        plan.draw_into(self._laws, np.uint64(0), 0, self._id, height, width, self._rows)
        pool = self._scratch.fitting(height, width, self._largest)
        sample = self._id % _KEPT_SAMPLES
        cpu.render_image(image, self._rows, self._slots, sample, False, False, self.out, pool)
        self._id += 1


# ------------------------------------------------------------------------------------------ loaders


class Batches:
    """A loader. Up to `ahead` batches lie ready in its queues, and it makes `together` at once."""

    stage = "loader"

    def __init__(
        self,
        name: str,
        start: Callable[[], peers.Batches],
        batch_size: int,
        workers: int,
        *,
        ahead: int,
        together: int = 1,
    ) -> None:
        self.name, self.workers = name, workers
        self._start, self._batch_size = start, batch_size
        self._ahead, self._together = ahead, together
        self._batches: peers.Batches | None = None

    def open(self) -> None:
        self._batches = self._start()
        next(self._batches)

    def measure(self, seconds: float) -> float:
        self._take(self._ahead + self._together)
        images, began, passed = 0, time.perf_counter(), 0.0
        while passed < seconds:
            self._take(self._together)  # all of them: what is in the time must be in the count
            images += self._together * self._batch_size
            passed = time.perf_counter() - began
        return images / passed

    def _take(self, count: int) -> None:
        for _ in range(count):
            next(cast(peers.Batches, self._batches))
        _finish_copies()

    def close(self) -> None:
        if self._batches:
            self._batches.close()


class OurLoader(Batches):
    """Also keeps what each stage of the loader did in each turn."""

    def __init__(self, loader: Loader, batch_size: int, workers: int) -> None:
        super().__init__("loader", lambda: _forever(loader), batch_size, workers, ahead=3)
        self._loader = loader
        self.turns: list[dict[str, Stage]] = []

    def measure(self, seconds: float) -> float:
        before = self._loader.stats().stages
        rate = super().measure(seconds)
        after = self._loader.stats().stages
        self.turns.append({name: _between(before[name], after[name]) for name in after})
        return rate


def _between(before: Stage, after: Stage) -> Stage:
    return Stage(after.items - before.items, after.seconds - before.seconds, 0.0)


def _forever(loader: Loader) -> peers.Batches:
    while True:
        yield from loader


def _finish_copies() -> None:
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def their_loader(
    name: str, paths: list[str], recipe: Recipe, batch_size: int, workers: int
) -> Batches:
    peer = peers.load(name)
    ahead, together = {
        "torchvision": (2 * workers, workers),  # each worker makes whole batches
        "dali": (3, 1),
        "ffcv": (5, 1),
    }[name]

    def start() -> peers.Batches:
        if reason := peer.available():
            raise MillError(reason)
        return peer.open(paths, recipe, workers, batch_size)

    return Batches(
        name,
        start,
        batch_size,
        workers,
        ahead=ahead,
        together=together,
    )
