"""Train the same networks on several feeds in turns."""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import machine, timing
from patchmill.benchmarks.lib.training import feeds, gpu_waits, steps
from patchmill.benchmarks.lib.training.table import TrainingResult
from patchmill.loaders.build import default_workers
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.sources import open_source
from patchmill.training.config.recipes import training_recipe
from patchmill.training.ranks import distributed
from patchmill.training.ranks.failures import StackDump
from patchmill.training.runtime import setup

if TYPE_CHECKING:
    from patchmill.benchmarks.lib.training.feeds import Feed
    from patchmill.benchmarks.lib.training.steps import TurnResult
    from patchmill.training.config.settings import Config
    from patchmill.training.runtime.state import State

MIN_WARM_UP = 2  # steps


def run(config: Config, peer_names: Sequence[str], count: int, rounds: int) -> TrainingResult:
    """Measure all feeds in turns of `count` steps, rounded up to a multiple of the workers."""
    workers = config.train.threads(default_workers())
    # The workers of a DataLoader all finish a batch at about the same time.
    count, warm_up = -(-count // workers) * workers, max(MIN_WARM_UP, workers)
    world = distributed.connect(config.train.device)
    if world.size > 1:
        raise MillError("this benchmark trains in one process: start it without torchrun or srun")
    with contextlib.ExitStack() as tools:
        folder = Path(tools.enter_context(tempfile.TemporaryDirectory(prefix="patchmill-")))
        config = replace(config, resume="never")
        state = tools.enter_context(setup.build_run(config, world, folder))
        stacks = tools.enter_context(contextlib.closing(StackDump(folder)))
        open_feeds = _open_feeds(state, peer_names, workers)
        turns, other_cores = _measure_in_turns(state, stacks, open_feeds, warm_up, count, rounds)
        memory = _memory()
        on_gpu = world.device.type == "cuda"
        waits = gpu_waits.count(state, stacks, open_feeds[1]) if on_gpu else None
        del open_feeds  # ends the workers of the DataLoader
    distributed.close()
    notes = [f"{name} {note}" for name in peer_names for note in differences(name, config)]
    threads = torch.get_num_threads()
    return TrainingResult(turns, count, rounds, workers, threads, other_cores, memory, notes, waits)


def _open_feeds(state: State, peer_names: Sequence[str], workers: int) -> list[Feed]:
    """Open all feeds; torchvision's workers fork before our loader starts threads."""
    loader, config = state.loader, state.config
    opened = [feeds.cached_feed(loader)]
    if feeds.TORCHVISION in peer_names:
        example, recipe = next(opened[0].batches), training_recipe(config)
        try:
            source = open_source(config.data.train)
            opened.append(feeds.torchvision_feed(source, recipe, example, workers))
        except MillError as error:
            raise MillError(f"{error}; to skip torchvision: --peers ''") from None
    for feed in opened:
        next(feed.batches)
    opened.insert(1, feeds.loader_feed(loader))
    return opened


def _measure_in_turns(
    state: State, stacks: StackDump, open_feeds: list[Feed], warm_up: int, count: int, rounds: int
) -> tuple[dict[str, list[TurnResult]], float]:
    """All turns by feed, and the mean number of cores kept busy by other programs."""
    turns: dict[str, list[TurnResult]] = {feed.name: [] for feed in open_feeds}

    def measure(feed: Feed) -> float:
        turn = steps.run_turn(state, stacks, feed, warm_up, count)
        turns[feed.name].append(turn)
        advance(1)
        return turn.images_per_s

    with track("training", len(open_feeds) * (1 + rounds)) as advance:
        for feed in open_feeds:  # warm-up: compilation, and cuDNN's algorithm search
            steps.run_turn(state, stacks, feed, 0, MIN_WARM_UP)
            advance(1)
        start, others = time.perf_counter(), _cpu_seconds_of_others()
        timing.interleave({feed.name: partial(measure, feed) for feed in open_feeds}, rounds)
        others = _cpu_seconds_of_others() - others
    return turns, max(others, 0.0) / (time.perf_counter() - start)


def _cpu_seconds_of_others() -> float:
    return machine.busy_core_seconds() - timing.cpu_seconds()


def _memory() -> dict[str, int]:
    """MiB of this process's peak and of its workers' current memory."""
    children = multiprocessing.active_children()
    workers = sum(machine.proportional_bytes(child.pid) for child in children)
    return {"process_at_most": machine.peak_bytes() >> 20, "workers": workers >> 20}


def differences(peer_name: str, config: Config) -> list[str]:
    """Notes on a peer's deviations from the configured recipe."""
    recipe = training_recipe(config)
    pastes = any(group.paste for group in recipe.views)
    notes = [peers.note(peer_name, recipe), "does not paste on other backgrounds" if pastes else ""]
    return [note for note in notes if note]
