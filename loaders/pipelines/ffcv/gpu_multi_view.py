"""`GpuMultiView`: operations that make all views of a recipe on a GPU, inside FFCV's own loader.

    views = GpuMultiView("dino", seed=0, source=Beton("train.beton"), device="cuda:0")
    loader = Loader("train.beton", 256, num_workers=16, order=OrderOption.RANDOM,
                    pipelines={"image": views.operations, "label": None})
    for (made,) in loader:
        batch = views.batch(made)  # on the GPU, with labels

The first operation decodes a batch into pinned memory, laid out by the file's table. The second
queues the upload and the rendering on a side stream, as many batches ahead as FFCV prefetches.
Samples, views and ledger are the same as in every other pipeline. Samples beyond the batch's pixel
budget are decoded and rendered by the second operation, in sub-batches.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from patchmill.loaders.pipelines.ffcv import workarounds  # noqa: F401  # isort: skip  # before FFCV
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State

from patchmill.kernels.views import layout
from patchmill.loaders import recipe as recipes
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.build import checked_device, checked_max_pixels, ledger_path
from patchmill.loaders.common import ranks
from patchmill.loaders.common.errors import MillError, memory_error
from patchmill.loaders.copypaste.backgrounds import BackgroundData
from patchmill.loaders.decode.bad_image import MAX_PIXELS
from patchmill.loaders.files import mapped
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.pipelines.ffcv.multi_view import (
    own_config,
    own_masks,
    own_recipe,
)
from patchmill.loaders.pipelines.ffcv.ragged import (
    RaggedArrays,
    RaggedBatch,
    RaggedDecoder,
    within_budget,
)
from patchmill.loaders.pipelines.gpu.arena import ArenaJob, pack_paste_inputs
from patchmill.loaders.pipelines.gpu.pipeline import decode
from patchmill.loaders.pipelines.gpu.sub_batches import Decoded, render_in_sub_batches
from patchmill.loaders.pipelines.gpu.views import GpuViews
from patchmill.loaders.pipelines.memory import SMALLER
from patchmill.loaders.pipelines.worker import Worker
from patchmill.loaders.plan import draw
from patchmill.loaders.sources.beton.source import Beton
from patchmill.loaders.stats import Counters

# (address of int64 ids, their number, epoch, address of their places) -> number of the batch
_BEGIN = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
)
_FAILED, _PLACE_BYTES = -1, 3 * 8


class GpuMultiView(RaggedDecoder):
    """`operations` are for an RGBImageField; epochs are counted as in `MultiView`."""

    def __init__(
        self,
        recipe: recipes.Recipe | str | Path,
        seed: int = 0,
        *,
        source: Beton,
        device: str | torch.device = "cuda",
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        ledger: str | Path | None = None,
        masks: str | Path | None = None,
        backgrounds: BackgroundData | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        recipe, gpu = own_recipe(recipe), _checked_gpu(device)
        super().__init__(draw.law_table(recipe), seed)
        path = ledger_path(ledger, source, ranks.number(os.environ, "RANK", 0))
        self.recipe, self.ledger, self.epoch = recipe, Ledger(path, len(source)), -1
        self._config = own_config(
            recipe, seed, dtype, channels_last, gpu, source, self.ledger,
            own_masks(masks, source, recipe), backgrounds, checked_max_pixels(max_pixels),
        )  # fmt: skip
        self.operations: list[Operation] = [self, _MakeViews(self)]
        self.error: BaseException | None = None
        self._views: GpuViews | None = None  # created for the first batch, which is the largest
        self._worker = Worker(self._config, Counters(("read", "decode", "plan", "mask")))
        self._batches: dict[int, tuple[ArenaJob, RaggedBatch]] = {}
        self._numbers, self._lock = itertools.count(), threading.Lock()
        self._begin = _BEGIN(self._lay_out)

    def batch(self, made: ArenaJob | None) -> ViewBatch:
        """Wrap the output of FFCV's loader for the current stream, in memory of our own.

        An error while the batch was made, such as too many bad samples, is raised here.
        """
        mapped.check(self._config.mapped_files)
        if made is None or self._views is None:
            error = self.error or MillError(
                "the batch was not made: pass the output of FFCV's loader to batch()"
            )
            raise memory_error(error, "another batch", SMALLER) or error
        filled, config = self._views.hand_over(made), self._config
        views = layout.views_by_group(
            filled.flat, config.targets, len(filled.ids), config.channels_last
        )
        return ViewBatch(
            views, torch.from_numpy(filled.ids), filled.labels, filled.rows, filled.shapes,
            config.targets,
        )  # fmt: skip

    def make_views(self, arrays: RaggedArrays) -> ArenaJob | None:
        """Queue the views of a decoded batch; None after an error, which `batch` raises.

        FFCV's thread would end silently if this raised anything.
        """
        number, decoded, rows, _ = arrays
        try:
            job, batch = self._batches.pop(number)
            made, left = batch.finish(decoded, rows)
            with self._lock:
                for slot in left:
                    decode(self._worker, job, range(slot, slot + 1))
                pack_paste_inputs(self._worker, job, made, "decode")
            assert self._views is not None
            if job.is_late.any():
                new_sub_batch = partial(self._job, self._views, job.epoch)
                render_in_sub_batches(self._views, job, new_sub_batch, self._load)
            else:
                self._views.render(job)
        except BaseException as error:
            self.error = self.error or error
            return None
        return job

    def next_epoch(self) -> int:
        epoch, self.epoch = max(self.epoch, 0), self.epoch + 1
        return epoch

    def compile_begin(self) -> Any:
        begin = self._begin

        @numba.njit(nogil=True)
        def lay_out(ids, epoch, places):  # type: ignore[no-untyped-def]
            copied = ids.astype(np.int64)
            return begin(copied.ctypes.data, len(copied), epoch, places.ctypes.data)

        return lay_out

    def _lay_out(self, ids: int, count: int, epoch: int, places: int) -> int:
        """Give each image of a batch a place in pinned memory; see `_BEGIN`."""
        try:
            requested = np.array((ctypes.c_int64 * count).from_address(ids), np.int64)
            if self._views is None:
                self._config = replace(self._config, max_batch=count)
                self._views = GpuViews(self._config, Counters(("upload", "render")))
            job = self._job(self._views, epoch, requested)
            batch, number = self._laid_out(job, count), next(self._numbers)
            ctypes.memset(places, 0, count * _PLACE_BYTES)
            ctypes.memmove(places, batch.places.ctypes.data, batch.places.nbytes)
            self._batches[number] = job, batch
            return number
        except BaseException as error:
            self.error = error
            ctypes.memset(places, 0, count * _PLACE_BYTES)
            return _FAILED

    def _job(self, views: GpuViews, epoch: int, ids: np.ndarray) -> ArenaJob:
        config = self._config
        job = ArenaJob(epoch, ids, config.views, views.arena(), config.batch_pixels)
        views.prepare(job)
        return job

    def _laid_out(self, job: ArenaJob, count: int) -> RaggedBatch:
        most = self._config.max_pixels
        slots = within_budget(job, range(count), self.metadata, most)
        return RaggedBatch(job, slots, self.metadata, most)

    def _load(self, sub_batch: ArenaJob) -> Decoded:
        with self._lock:
            decode(self._worker, sub_batch, range(len(sub_batch)))
        return None, None


class _MakeViews(Operation):
    """The operation after `GpuMultiView`, which FFCV runs in Python."""

    def __init__(self, views: GpuMultiView) -> None:
        super().__init__()
        self._views = views

    def generate_code(self) -> Callable[..., ArenaJob | None]:
        def make_views(arrays: RaggedArrays, memory: None) -> ArenaJob | None:
            return self._views.make_views(arrays)

        return make_views

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        return replace(previous_state, jit_mode=False), None


def _checked_gpu(device: str | torch.device) -> torch.device:
    checked = checked_device(device)
    if checked.type != "cuda":
        raise MillError("GpuMultiView makes views on a GPU: use MultiView for the CPU")
    return checked
