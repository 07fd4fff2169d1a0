"""`Loader`: iterate over epochs of batches, save and restore the position, report statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from numbers import Number
from typing import Any

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.loaders.advice import Facts
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common import ranks, threads
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief
from patchmill.loaders.decode.bad_image import MAX_PIXELS
from patchmill.loaders.decoded.on_device import free_bytes
from patchmill.loaders.files import host
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.operations.mix import Mix
from patchmill.loaders.order.schedule import MOST_EPOCHS, Schedule, state_number
from patchmill.loaders.pipelines import FilledBatch, Pipeline, Run
from patchmill.loaders.pipelines.spec import log_once
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sampler import SamplerFace
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.folder import Folder
from patchmill.loaders.sources.lists.path_list import Paths
from patchmill.loaders.sources.scenes.source import Scenes
from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.loaders.stats import Stats

STATE_VERSION = 1


class Loader:
    """Yields one epoch of batches per iteration; made by `loaders.build`.

    An iteration that is left early still counts as an epoch. Only one runs at a time: starting
    another ends the one in progress. A loader can be pickled, so that another process can continue:
    the pickle holds its arguments and its position.
    """

    batch_sampler = None  # Lightning expects this attribute on anything that has a sampler

    def __init__(
        self,
        source: Source | StreamSource,
        recipe: Recipe,
        schedule: Schedule,
        pipeline: Pipeline,
        *,
        seed: int,
        batch_size: int,
        drop_last: bool,
        rank: ranks.Rank,
        device: str,
        channels_last: bool,
        ledger: Ledger,
        rebuild: Callable[[], Loader],
        masks: str = "",
        backgrounds: str = "",
        mix: Mix | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.source, self.recipe, self.pipeline, self.seed = source, recipe, pipeline, seed
        self.batch_size, self.drop_last = batch_size, drop_last
        self.ledger, self._masks, self._backgrounds = ledger, masks, backgrounds
        self._rank, self._rebuild = rank, rebuild
        self._schedule, self._steps = schedule, schedule.steps
        self._targets, self._channels_last = draw.targets(recipe), channels_last
        self._device, self._mix, self._max_pixels = device, mix, max_pixels
        self._run: Run | None = None
        self._epoch, self._step, self._started = 0, 0, False
        self._next_epoch: int | None = None  # from `set_epoch` during an iteration
        self._seen, self._seconds, self._waited = 0, 0.0, 0.0  # samples; seconds in iterations
        self._pixels = 0  # of all images seen

    def __repr__(self) -> str:
        share = f", {self._rank}" if self._rank.size > 1 else ""
        return (
            f"Loader({self.source.name}, {self.recipe}, batch_size={self.batch_size}{share}, "
            f"epoch {self.epoch})"
        )

    def __len__(self) -> int:
        """Steps in an epoch."""
        if self._steps is None:
            raise TypeError("a stream has no known length: build the loader with steps=")
        return self._steps

    @property
    def epoch(self) -> int:
        """The epoch in progress, or the next one."""
        return self._position()[0]

    @property
    def first_step(self) -> int:
        """First step of the next iteration within its epoch; above 0 after a resume.

        For loops that count steps: `for step, batch in enumerate(loader, loader.first_step)`.
        """
        fresh = self._started or self._next_epoch is not None or self._is_over()
        return 0 if fresh else self._step

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; a position in it that was loaded is kept.

        Optional: by default, each iteration is the next epoch.
        """
        if not isinstance(epoch, int) or epoch < 0:
            raise MillError(f"an epoch is a whole number of at least 0, not {epoch!r}")
        self._next_epoch = epoch if self._run else None
        if not self._run and (self._started or epoch != self.epoch):
            self._epoch, self._step, self._started = epoch, 0, False

    @property
    def sampler(self) -> SamplerFace:
        """The loader's order, with the interface of torch's DistributedSampler."""
        return SamplerFace(self, self._rank.rank, self._rank.size)

    @property
    def dataset(self) -> Source | StreamSource:
        """The source, under the name that torch's DataLoader uses for it."""
        return self.source

    def __iter__(self) -> Iterator[ViewBatch]:
        run = self._start()
        try:
            epoch = self._epoch
            while True:
                start = time.perf_counter()
                filled = run.next()
                self._waited += time.perf_counter() - start
                if filled is None:
                    break
                batch = self._batch(filled)
                del filled  # a reference here would keep the memory from returning to the pool
                self._step += 1
                self._schedule.consumed(self._step)
                self._seen += len(batch)
                self._pixels += int(batch.shapes.prod(1, dtype=np.int64).sum())
                self.ledger.allow(self._seen)
                yield batch
                del batch
                run.check()
            self._epoch, self._step, self._started = epoch + 1, 0, False
            self._report_cache()
        finally:
            run.dismiss()
            self._seconds += run.seconds
            if self._run is run:
                self._run = None

    def close(self) -> None:
        """End the iteration in progress, if any, and free the memory pooled for batches."""
        self._end()
        self.pipeline.clear()

    def stats(self) -> Stats:
        """Items, speed and occupancy per stage, the time spent waiting, and the bottleneck."""
        run = self._run
        seconds = self._seconds + (run.seconds if run else 0.0)
        pipeline = self.pipeline
        return Stats(
            pipeline.stages(seconds),
            pipeline.workers,
            seconds,
            self._waited,
            len(self.ledger),
            pipeline.unmasked(),
            pipeline.cache(),
            pipeline.idle(),
            self._facts(),
        )

    def _facts(self) -> Facts:
        source, pipeline = self.source, self.pipeline
        return Facts(
            pipeline.name,
            self._device,
            max(round(threads.core_time() / ranks.local_size()), 1),
            pipeline.prefetch,
            source.sample_count,
            3 * self._pixels / max(self._seen, 1),
            isinstance(source, Folder | Paths),
            isinstance(source, Scenes),
            gpu=torch.cuda.is_available(),
            free_bytes=host.free_memory(),
            device_bytes=None if self._device == "cpu" else free_bytes(torch.device(self._device)),
        )

    def _report_cache(self) -> None:
        cache = self.pipeline.cache()
        if cache is not None and (summary := cache.summary(len(self.ledger))):
            log_once(summary)

    def _start(self) -> Run:
        self._end()
        ranks.check(self._rank)
        if self._next_epoch is not None:
            self._epoch, self._step, self._next_epoch = self._next_epoch, 0, None
        elif self._started or self._is_over():  # an iteration that was left early counts
            self._epoch, self._step = self._epoch + 1, 0
        self._run = run = self.pipeline.run(self._schedule.batches(self._epoch, self._step))
        self._started = True
        return run

    def _end(self) -> None:
        if run := self._run:
            run.dismiss()

    def _batch(self, filled: FilledBatch) -> ViewBatch:
        ids, targets = filled.ids, self._targets
        views = layout.views_by_group(filled.flat, targets, len(ids), self._channels_last)
        labels = filled.labels if self._mix is None else self._soft_labels(self._mix, filled)
        return ViewBatch(views, torch.from_numpy(ids), labels, filled.rows, filled.shapes, targets)

    def _soft_labels(self, mix: Mix, filled: FilledBatch) -> torch.Tensor:
        if filled.labels is None:
            raise MillError(f"mix makes soft labels, but {self.source.name} has no labels")
        mixing = mix.decide(self.seed, self._epoch, filled.ids)
        return mix.soft_labels(filled.labels, mixing, self._targets[0].size)

    # ------------------------------------------------------------------------------------ resuming

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._rebuild, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The position in the epoch; inside the loop, the current batch counts as consumed."""
        epoch, step = self._position()
        return {
            "version": STATE_VERSION,
            "epoch": epoch,
            **self._schedule.save(step),
            **self._identity(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state`: the next iteration starts with the first unconsumed batch."""
        if not isinstance(state, dict) or not _is(state.get("version"), STATE_VERSION):
            raise MillError(
                "this is not a loader state of this version of patchmill: pass the result of a "
                "loader's state_dict()"
            )
        for field, value in ({"mix": None, "max_pixels": None} | self._identity()).items():
            if not _is(saved := state.get(field), value):
                shown = saved if isinstance(saved, str | int | None) else brief(saved)
                raise MillError(
                    f"the state was saved with another {field} ({shown}, here {value}): "
                    f"{_REMEDY[field]}"
                )
        epoch = state_number(state, "epoch", below=MOST_EPOCHS)
        self._end()
        self._run = None  # its iterator may still exist, but has ended
        self._epoch, self._step = epoch, self._schedule.load(state)
        self._started, self._next_epoch = False, None

    def _position(self) -> tuple[int, int]:
        """Epoch and step; the end of an epoch is step 0 of the next."""
        return (self._epoch + 1, 0) if self._is_over() else (self._epoch, self._step)

    def _is_over(self) -> bool:
        return self._steps is not None and self._step >= self._steps

    def _identity(self) -> dict[str, Any]:
        return {
            "data": self.source.fingerprint,
            "recipe": self.recipe.fingerprint(),
            "seed": self.seed,
            **({"masks": self._masks} if self._masks else {}),
            **({"backgrounds": self._backgrounds} if self._backgrounds else {}),
            **({"mix": repr(self._mix)} if self._mix else {}),
            **({"max_pixels": self._max_pixels} if self._max_pixels != MAX_PIXELS else {}),
            **self._schedule.identity(),
        }


def _is(saved: object, value: object) -> bool:
    """Compare a value of a saved state, which may have any type, with the loader's."""
    return isinstance(saved, str | Number | None) and saved == value


def _restored(rebuild: Callable[[], Loader], state: dict[str, Any]) -> Loader:
    loader = rebuild()
    loader.load_state_dict(state)
    return loader


_REMEDY = {
    "data": "build the loader on the same list of samples",
    "recipe": "build the loader with the same recipe",
    "seed": "build the loader with the same seed",
    "masks": "build the loader with the same masks",
    "backgrounds": "build the loader with the same backgrounds",
    "mix": "build the loader with the same mix",
    "max_pixels": f"build the loader with the same max_pixels ({MAX_PIXELS} for None)",
    "global_batch": "choose batch_size so that batch_size x world_size stays the same",
    "batch_size": "a stream can only resume with the same batch_size",
    "rank": "a stream can only resume from each rank's own state",
    "world_size": "a stream can only resume with the same number of ranks",
    "steps": "build the loader with the same steps",
}
