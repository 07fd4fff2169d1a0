"""Measure loading, computing and training in several concurrent processes on this machine.

Processes are started as by torchrun, and train in the training engine over gloo or NCCL.
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

LOADING, COMPUTING, TRAINING = TURNS = ("loading", "computing", "training")
WARM_UP = 3  # uncounted steps of a turn
ALL_REDUCES = 9
SIZE_SAMPLE = 256  # images whose encoded size is averaged


@dataclass(frozen=True)
class Workload:
    """Work per process, independent of their number."""

    overrides: list[str]  # settings of training, as key=value
    batch: int  # images per rank and step
    workers: int  # of each rank's loader
    steps: int  # of a turn of computing or training
    seconds: float  # of a turn of loading
    rounds: int


@dataclass(frozen=True)
class ScalingResult:
    """Rates are summed over all ranks, by turn and round; the other fields are rank 0's."""

    processes: int
    batch: int  # images per rank and step
    workers: int  # of each rank's loader
    rates: dict[str, list[float]]  # images per second
    wait: float  # share of training time spent waiting for a batch
    exchange: float | None  # seconds of an all-reduce of the gradients; None for one process
    latency: float | None  # seconds of an all-reduce of one number
    gradient: int  # bytes
    image: float  # mean encoded bytes of an image
    device: str

    def rate(self, turn: str) -> Summary:
        return timing.summary(self.rates[turn])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run(workload: Workload, counts: Sequence[int]) -> list[ScalingResult]:
    """Measure each number of processes in `counts`."""
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        overrides = [*workload.overrides, *_scenes_as_shards(workload.overrides, Path(folder))]
        measured = []
        with track("measuring", sum(counts), unit="processes") as advance:
            for count in counts:
                sized = _with_settings(workload, overrides, count)
                measured.append(_run_processes(sized, count, Path(folder)))
                advance(count)
        return measured


def _with_settings(workload: Workload, overrides: list[str], count: int) -> Workload:
    settings = [
        f"train.batch_size={workload.batch * count}",
        f"train.workers={workload.workers}",
        "evaluate.knn_every=0",
        "resume=never",
    ]
    return replace(workload, overrides=[*overrides, *settings])


def _scenes_as_shards(overrides: list[str], folder: Path) -> list[str]:
    """Write scenes to shards: they are drawn when read, which would count as storage time."""
    from patchmill.loaders.prepare import make_data
    from patchmill.loaders.prepare.options import Options
    from patchmill.loaders.sources import open_source
    from patchmill.training.config import compose

    data = compose.compose(overrides).data.train
    if not data.startswith("scenes"):
        return []
    make_data.make(open_source(data), folder / "shards", Options("shards"), 1)
    return [f"data.train={folder / 'shards'}", "data.test=null"]


def _run_processes(workload: Workload, count: int, folder: Path) -> ScalingResult:
    with socket.socket() as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    results_folder = folder / str(count)
    results_folder.mkdir()
    ranks = [
        spawn.Process(target=_rank_main, args=(workload, rank, count, port, results_folder))
        for rank in range(count)
    ]
    try:
        for process in ranks:
            process.start()
        while any(p.is_alive() for p in ranks) and not any(p.exitcode for p in ranks):
            ranks[0].join(0.2)
            time.sleep(0.05)
        if failed := [rank for rank, process in enumerate(ranks) if process.exitcode]:
            raise MillError(f"process {failed[0]} of {count} failed; its error is printed above")
    finally:
        for process in ranks:
            process.terminate()
            process.join()
    results = [json.loads((results_folder / f"{rank}.json").read_text()) for rank in range(count)]
    return _sum_rates(results)


def _sum_rates(results: list[dict[str, Any]]) -> ScalingResult:
    rates = {
        turn: [sum(by_rank) for by_rank in zip(*(r["rates"][turn] for r in results), strict=True)]
        for turn in TURNS
    }
    return ScalingResult(**results[0] | {"rates": rates})


# ------------------------------------------------------------------------------- in each process


def _rank_main(workload: Workload, rank: int, size: int, port: int, folder: Path) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(number) for name, number in ranks.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    try:
        result = _measure_rank(workload, folder)
    except MillError as error:
        raise SystemExit(f"error: {error}") from None
    (folder / f"{rank}.json").write_text(json.dumps(result.as_json()))


def _measure_rank(workload: Workload, folder: Path) -> ScalingResult:
    from patchmill.benchmarks.lib.training import feeds
    from patchmill.training.config import compose
    from patchmill.training.ranks import distributed
    from patchmill.training.ranks.failures import StackDump
    from patchmill.training.runtime import setup

    config = compose.compose(workload.overrides)
    world = distributed.connect(config.train.device)
    with contextlib.ExitStack() as tools:
        state = tools.enter_context(setup.build_run(config, world, folder))
        stacks = tools.enter_context(contextlib.closing(StackDump(folder)))
        cached, loader = feeds.cached_feed(state.loader), feeds.loader_feed(state.loader)
        rates, wait = _measure_turns(workload, state, stacks, cached, loader)
        gradient = sum(p.numel() * p.element_size() for p in _trained_parameters(state))
        result = ScalingResult(
            world.size,
            workload.batch,
            workload.workers,
            rates,
            wait,
            _all_reduce_seconds(gradient // 4, world.device) if world.size > 1 else None,
            _all_reduce_seconds(1, world.device) if world.size > 1 else None,
            gradient,
            _mean_image_bytes(config.data.train),
            str(world.device.type),
        )
    distributed.close()
    return result


def _measure_turns(
    workload: Workload, state: State, stacks: Any, cached: Feed, loader: Feed
) -> tuple[dict[str, list[float]], float]:
    """Images per second of this rank by turn and round, and the median wait of training."""
    from patchmill.benchmarks.lib.training import steps

    waits = []

    def train() -> float:
        turn = steps.run_turn(state, stacks, loader, WARM_UP, workload.steps)
        waits.append(turn.wait)
        return turn.images_per_s

    def compute() -> float:
        return steps.run_turn(state, stacks, cached, WARM_UP, workload.steps).images_per_s

    turns: dict[str, Callable[[], float]] = {
        LOADING: lambda: _load(loader, workload.seconds),
        COMPUTING: compute,
        TRAINING: train,
    }
    steps.run_turn(state, stacks, cached, 0, WARM_UP)  # compiles
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(workload.rounds):  # in the same order on all ranks
        for name, turn in turns.items():
            rates[name].append(turn())
    return rates, statistics.median(waits)


def _load(feed: Feed, seconds: float) -> float:
    """Images per second that this rank loads while the others load as well."""
    from patchmill.training.ranks import distributed

    feed.drop_queued()
    distributed.barrier()
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        images += len(next(feed.batches))
    timing.synchronize_gpu()
    return images / (time.perf_counter() - start)


def _all_reduce_seconds(numbers: int, device: torch.device) -> float:
    """Median seconds of an all-reduce of this many float32 numbers."""
    import torch.distributed as dist

    seconds, values = [], torch.zeros(numbers, device=device)
    for _ in range(ALL_REDUCES):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(values)
        timing.synchronize_gpu()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _trained_parameters(state: State) -> list[torch.nn.Parameter]:
    return [p for p in state.method.parameters() if p.requires_grad]


def _mean_image_bytes(data: str) -> float:
    from patchmill.loaders.sources import open_source

    source = open_source(data)
    indices = range(0, len(source), max(1, len(source) // SIZE_SAMPLE))
    return statistics.mean(len(source.read(index)) for index in indices)
