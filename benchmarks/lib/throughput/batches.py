"""Contenders that are endless iterators of batches; imports little, for peers elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import timing
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe


@dataclass(frozen=True)
class Making:
    """Facts about views that a report states next to their rate."""

    decoder: str = ""
    antialiased: bool | None = None  # None if nothing is resized


class BatchContender:
    """An endless iterator of batches: queues up to `ahead` and finishes `together` at a time."""

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
        making: Making = Making(),
    ) -> None:
        self.name, self.stage, self.workers, self.making = name, stage, workers, making
        self._start, self._batch_size = start, batch_size
        self._ahead, self._together = ahead, together
        self._batches: peers.Batches | None = None

    def open(self) -> None:
        self._batches = self._start()
        next(self._batches)

    def measure(self, seconds: float) -> float:
        self._consume(self._ahead + self._together)
        timing.synchronize_gpu()
        images, start = 0, time.perf_counter()
        while not images or time.perf_counter() - start < seconds:
            self._consume(self._together)  # all: batches made in the measured time must be counted
            images += self._together * self._batch_size
        timing.synchronize_gpu()
        return images / (time.perf_counter() - start)

    def _consume(self, count: int) -> None:
        for _ in range(count):
            next(cast(peers.Batches, self._batches))

    def close(self) -> None:
        if self._batches:
            self._batches.close()


# Peer -> function of its workers: batches it queues, and batches it finishes at about the same
# time.
_QUEUES: dict[str, Callable[[int], tuple[int, int]]] = {
    **dict.fromkeys(peers.FORKING, lambda workers: (2 * workers, workers)),  # whole batches each
    "spdl": lambda workers: (5, 1),
    "dali": lambda workers: (3, 1),
    "ffcv": lambda workers: (5, 1),
}


def peer_contender(
    name: str, paths: list[str], recipe: Recipe, batch_size: int, workers: int, device: str = "cpu"
) -> BatchContender:
    peer = peers.load(name)
    ahead, together = _QUEUES.get(name, lambda workers: (0, 1))(workers)

    def start() -> peers.Batches:
        if reason := peer.DEVICES[device.partition(":")[0]] or peer.available():
            raise MillError(reason)
        peers.check(name, recipe)
        return peer.open(paths, recipe, workers, batch_size, device)

    making = Making(peer.DECODER, peer.ANTIALIASED)
    return BatchContender(
        name, start, batch_size, workers, ahead=ahead, together=together, making=making
    )
