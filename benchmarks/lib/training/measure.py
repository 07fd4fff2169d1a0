"""The feeds' turns at training the same networks."""

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
from patchmill.benchmarks.lib.training import feeds, steps
from patchmill.benchmarks.lib.training.table import Result
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
    from patchmill.benchmarks.lib.training.steps import Turn
    from patchmill.training.config.settings import Config
    from patchmill.training.runtime.state import State

FEWEST_WARM_UP = 2  # steps


def run(config: Config, theirs: Sequence[str], count: int, rounds: int) -> Result:
    """Each takes `count` steps a turn, or a few more."""
    workers = config.train.workers or default_workers()
    # A DataLoader's workers bring a batch each at about the same time: whole rounds of them count.
    count, warm_up = -(-count // workers) * workers, max(FEWEST_WARM_UP, workers)
    world = distributed.connect(config.train.device)
    if world.size > 1:
        raise MillError("this benchmark trains in one process: start it without torchrun or srun")
    with contextlib.ExitStack() as tools:
        folder = Path(tools.enter_context(tempfile.TemporaryDirectory(prefix="patchmill-")))
        config = replace(config, resume="never")
        state = tools.enter_context(setup.build_run(config, world, folder))
        stacks = tools.enter_context(contextlib.closing(StackDump(folder)))
        contenders = _contenders(state, theirs, workers)
        turns, others = _race(state, stacks, contenders, warm_up, count, rounds)
        memory = _memory()
        del contenders  # and with them, the workers
    distributed.close()
    notes = [f"{name} {note}" for name in theirs for note in differences(name, config)]
    return Result(turns, count, rounds, workers, torch.get_num_threads(), others, memory, notes)


def _contenders(state: State, theirs: Sequence[str], workers: int) -> list[Feed]:
    """Theirs start before ours, whose threads a fork would not take along."""
    loader, config = state.loader, state.config
    found = [feeds.cached(loader)]
    if feeds.THEIRS in theirs:
        like, recipe = next(found[0].batches), training_recipe(config)
        try:
            source = open_source(config.data.train)
            found.append(feeds.torchvisions(source, recipe, like, workers))
        except MillError as error:
            raise MillError(f"{error}; to leave torchvision out: --peers ''") from None
    for feed in found:
        next(feed.batches)
    found.insert(1, feeds.ours(loader))
    return found


def _race(
    state: State, stacks: StackDump, contenders: list[Feed], warm_up: int, count: int, rounds: int
) -> tuple[dict[str, list[Turn]], float]:
    """All turns, and how many cores others kept busy meanwhile."""
    found: dict[str, list[Turn]] = {feed.name: [] for feed in contenders}

    def turn(feed: Feed) -> float:
        found[feed.name].append(steps.take(state, stacks, feed, warm_up, count))
        advance(1)
        return found[feed.name][-1].images_per_s

    with track("training", len(contenders) * (1 + rounds)) as advance:
        for feed in contenders:  # compilers, and whoever looks for the fastest algorithm
            steps.take(state, stacks, feed, 0, FEWEST_WARM_UP)
            advance(1)
        began, busy = time.perf_counter(), machine.busy_seconds() - timing.processor_seconds()
        timing.interleave({feed.name: partial(turn, feed) for feed in contenders}, rounds)
        busy = machine.busy_seconds() - timing.processor_seconds() - busy
    return found, max(busy, 0.0) / (time.perf_counter() - began)


def _memory() -> dict[str, int]:
    """In MiB: what this process has had at most, and what its workers have now."""
    workers = sum(machine.proportional(it.pid) for it in multiprocessing.active_children())
    return {"process_at_most": machine.peak() >> 20, "workers": workers >> 20}


def differences(name: str, config: Config) -> list[str]:
    recipe = training_recipe(config)
    pastes = any(group.paste for group in recipe.views)
    found = [peers.note(name, recipe), "does not paste on other backgrounds" if pastes else ""]
    return [note for note in found if note]
