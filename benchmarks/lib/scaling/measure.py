"""So many processes of this machine load and train together, on the clock.

They are started as torchrun does, and each trains by training's own loop, by gloo or NCCL.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from patchmill.benchmarks.lib import timing
from patchmill.benchmarks.lib.timing import Summary
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track

if TYPE_CHECKING:
    from patchmill.benchmarks.lib.training.feeds import Feed
    from patchmill.training.runtime.state import State

# Without the others' work beside it, and all together.
LOADING, COMPUTING, TRAINING = TURNS = ("loading", "computing", "training")
WARM_UP = 3  # steps of a turn that do not count
EXCHANGES = 9
SHARDS = 256  # images of scenes, to be read as shards


@dataclass(frozen=True)
class Asked:
    """What is measured of any number of processes."""

    words: list[str]  # settings of training
    batch: int  # images of each rank in a step
    workers: int  # of each rank's loader
    steps: int  # of a turn of computing or training
    seconds: float  # of a turn of loading
    rounds: int


@dataclass(frozen=True)
class Measured:
    """Of all ranks together, round by round, images a second; of one rank, the rest."""

    processes: int
    batch: int  # images of each in a step
    workers: int  # of each one's loader
    rates: dict[str, list[float]]  # by turn
    wait: float  # share of training's time in which rank 0 has no batch
    exchange: float | None  # seconds in which gradients are added up; None for a process alone
    latency: float | None  # the same of one number
    gradient: int  # bytes
    image: float  # bytes of an encoded image, on average
    device: str

    def rate(self, turn: str) -> Summary:
        return timing.summary(self.rates[turn])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run(asked: Asked, counts: Sequence[int]) -> list[Measured]:
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        words = [*asked.words, *_fetched(asked.words, Path(folder))]
        measured = []
        with track("measuring", sum(counts), unit="processes") as advance:
            for count in counts:
                measured.append(_together(_with(asked, words, count), count, Path(folder)))
                advance(count)
        return measured


def _with(asked: Asked, words: list[str], count: int) -> Asked:
    more = [
        f"train.batch_size={asked.batch * count}",
        f"train.workers={asked.workers}",
        "evaluate.knn_every=0",
        "resume=never",
    ]
    return replace(asked, words=[*words, *more])


def _fetched(words: list[str], folder: Path) -> list[str]:
    """Scenes are drawn when they are read, which no store does: they become shards first."""
    from patchmill.loaders.prepare import make_data
    from patchmill.loaders.prepare.options import Options
    from patchmill.training.config import compose

    data = compose.compose(words).data.train
    if not data.startswith("scenes"):
        return []
    make_data.make(make_data.open_input(data), folder / "shards", Options("shards"), 1)
    return [f"data.train={folder / 'shards'}", "data.test=null"]


def _together(asked: Asked, count: int, folder: Path) -> Measured:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    spawning = multiprocessing.get_context("spawn")
    place = folder / str(count)
    place.mkdir()
    ranks = [
        spawning.Process(target=_rank, args=(asked, rank, count, port, place))
        for rank in range(count)
    ]
    try:
        for process in ranks:
            process.start()
        while any(it.is_alive() for it in ranks) and not any(it.exitcode for it in ranks):
            ranks[0].join(0.2)
            time.sleep(0.05)
        if failed := [rank for rank, it in enumerate(ranks) if it.exitcode]:
            raise MillError(f"process {failed[0]} of {count} failed, as it says above")
    finally:
        for process in ranks:
            process.terminate()
            process.join()
    return _summed([json.loads((place / f"{rank}.json").read_text()) for rank in range(count)])


def _summed(found: list[dict[str, Any]]) -> Measured:
    first = found[0]
    rates = {
        turn: [sum(rates) for rates in zip(*(it["rates"][turn] for it in found), strict=True)]
        for turn in TURNS
    }
    return Measured(**first | {"rates": rates})


# ------------------------------------------------------------------------------- in each process


def _rank(asked: Asked, rank: int, size: int, port: int, folder: Path) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(number) for name, number in place.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    try:
        found = _measure(asked, folder)
    except MillError as error:
        raise SystemExit(f"error: {error}") from None
    (folder / f"{rank}.json").write_text(json.dumps(found.as_json()))


def _measure(asked: Asked, folder: Path) -> Measured:
    from patchmill.benchmarks.lib.training import feeds
    from patchmill.training.config import compose
    from patchmill.training.ranks import distributed
    from patchmill.training.ranks.failures import StackDump
    from patchmill.training.runtime import setup

    config = compose.compose(asked.words)
    world = distributed.connect(config.train.device)
    with contextlib.ExitStack() as tools:
        state = tools.enter_context(setup.build_run(config, world, folder))
        stacks = tools.enter_context(contextlib.closing(StackDump(folder)))
        ready, ours = feeds.cached(state.loader), feeds.ours(state.loader)
        rates, wait = _race(asked, state, stacks, ready, ours)
        gradient = sum(it.numel() * it.element_size() for it in _learnt(state))
        found = Measured(
            world.size,
            asked.batch,
            asked.workers,
            rates,
            wait,
            _exchange(gradient // 4, world.device) if world.size > 1 else None,
            _exchange(1, world.device) if world.size > 1 else None,
            gradient,
            _bytes(config.data.train),
            str(world.device.type),
        )
    distributed.close()
    return found


def _race(
    asked: Asked, state: State, stacks: Any, ready: Feed, ours: Feed
) -> tuple[dict[str, list[float]], float]:
    from patchmill.benchmarks.lib.training import steps

    waits = []

    def training() -> float:
        turn = steps.take(state, stacks, ours, WARM_UP, asked.steps)
        waits.append(turn.wait)
        return turn.images_per_s

    turns: dict[str, Callable[[], float]] = {
        LOADING: lambda: _load(ours, asked.seconds),
        COMPUTING: lambda: steps.take(state, stacks, ready, WARM_UP, asked.steps).images_per_s,
        TRAINING: training,
    }
    steps.take(state, stacks, ready, 0, WARM_UP)  # compiles
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(asked.rounds):
        for name, turn in turns.items():
            rates[name].append(turn())
    return rates, statistics.median(waits)


def _load(feed: Feed, seconds: float) -> float:
    """Images a second of this rank, while the others load as well."""
    from patchmill.training.ranks import distributed

    feed.drop_ready()
    distributed.barrier()
    began, images = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        images += len(next(feed.batches))
    timing.finish_gpu()
    return images / (time.perf_counter() - began)


def _exchange(numbers: int, device: torch.device) -> float:
    """Seconds in which all ranks' numbers are added up."""
    import torch.distributed as dist

    seconds, values = [], torch.zeros(numbers, device=device)
    for _ in range(EXCHANGES):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(values)
        timing.finish_gpu()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _learnt(state: State) -> list[torch.nn.Parameter]:
    return [it for it in state.method.parameters() if it.requires_grad]


def _bytes(data: str) -> float:
    from patchmill.loaders.sources import open_source

    source = open_source(data)
    some = range(0, len(source), max(1, len(source) // SHARDS))
    return statistics.mean(len(source.read(index)) for index in some)
