"""The pipeline in which FFCV compiles and runs the work of a batch, and a .beton is its source.

FFCV's loader opens the file and compiles; a thread of ours calls what it compiled, batch after
batch in our order. FFCV's own thread would wait for ever where an error or an early end of the
iteration leaves it, and its batches live in memory that it soon writes again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import torch

from patchmill.kernels.common.jit import announce_compilation
from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines import Filled, Portion
from patchmill.loaders.pipelines.crew import Crew
from patchmill.loaders.pipelines.ffcv import workarounds  # before all of FFCV
from patchmill.loaders.pipelines.ffcv.lane import STAGES
from patchmill.loaders.pipelines.ffcv.view_decoder import Made, ViewDecoder
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.pipelines.memory import Blocks
from patchmill.loaders.pipelines.worker import Work, Worker
from patchmill.loaders.sources.beton.source import Beton
from patchmill.loaders.stats import Counters, Stage, collect

with workarounds.threads_kept():
    from ffcv.loader import Loader, OrderOption


class Batch(Job):
    """A batch that is one task."""

    made_of: Made

    def __len__(self) -> int:
        return 1


class Ffcv:
    name = "ffcv"

    def __init__(self, work: Work) -> None:
        source = work.source
        if not isinstance(source, Beton):
            raise MillError(
                f"pipeline 'ffcv' reads .beton files, which {source.name} is not: write one, or "
                "take pipeline='threads'"
            )
        if work.masks is not None:
            raise MillError("pipeline 'ffcv' does no copy-paste: take pipeline='threads'")
        if work.device.type != "cpu":
            raise MillError("pipeline 'ffcv' makes its views on the CPU: take device='cpu'")
        self._work = work
        self._blocks = Blocks(layout.elements(work.targets, work.most), work.dtype)
        self._decoder = ViewDecoder(
            work.laws, work.targets, work.seed, work.dtype, work.channels_last, source
        )
        self._decoder.ledger = work.ledger
        self._lanes = min(work.workers, numba.config.NUMBA_NUM_THREADS)
        self._counters = [Counters(STAGES) for _ in range(self._lanes)]
        self._worker = Worker(work, Counters(("batch",)))
        with announce_compilation():  # our kernels; FFCV compiles its own for each loader
            self._loader = self._compile(source)
        storage = self._loader.memory_manager.schedule_epoch([])
        storage.__enter__()  # maps the file
        self._storage = storage.state
        self._make(0, np.empty(0, np.int64))

    def run(self, portions: Iterator[Portion]) -> Crew:
        self._decoder.error = None
        self._worker = self._worker.usable()
        jobs = (Batch(epoch, ids, self._work.views, Countdown(1)) for epoch, ids in portions)
        return Crew([self._worker], self._fill, jobs, self._work.prefetch, self._hand_over)

    def stages(self, seconds: float) -> dict[str, Stage]:
        return collect({"workers": self._counters}, seconds)

    def unmasked(self) -> int:
        return 0

    def clear(self) -> None:
        self._blocks.clear()

    def _compile(self, source: Beton) -> Loader:
        pipelines = dict.fromkeys(source.fields) | {source.field: [self._decoder]}
        with workarounds.threads_kept():
            return Loader(
                source.path,
                self._work.most,
                num_workers=self._lanes,
                os_cache=True,
                order=OrderOption.SEQUENTIAL,
                pipelines=pipelines,
            )

    def _fill(self, worker: Worker, job: Batch, _: int) -> None:
        job.made_of = self._make(job.epoch, job.wanted)
        ids, spent = job.made_of[1][:, 0], job.made_of[4]
        self._decoder.check(ids)
        for counters, lane in zip(self._counters, spent, strict=True):
            for stage, nanoseconds in zip(STAGES, lane[1:], strict=True):
                counters.add(stage, int(nanoseconds), int(lane[0]))

    def _make(self, epoch: int, ids: np.ndarray) -> Made:
        """What FFCV's thread does for a batch, in memory that is not used again behind its user."""
        numba.set_num_threads(self._lanes)
        (pixels, _), *others = self._decoder.memory(epoch)
        flat = self._blocks.take()[: len(ids) * pixels[0]].view(len(ids), *pixels)
        two_bytes = flat.dtype in (torch.bfloat16, torch.float16)
        memory = [(flat.view(torch.uint16) if two_bytes else flat).numpy()]
        memory += [np.empty((len(ids), *shape), dtype) for shape, dtype in others]
        loader = self._loader
        (node,) = (node.id for node in loader.graph.root_nodes)
        (stage, _), *_ = loader.code[0]
        (made,) = stage(
            batch_indices=ids,
            metadata=loader.reader.metadata,
            storage_state=self._storage,
            **{f"memory_{node}": tuple(memory), f"shared_memory_{node}": None},
        )
        return made

    def _hand_over(self, job: Batch) -> Filled:
        pixels, ids, shapes, rows, _ = job.made_of
        ids = ids[:, 0]
        labels = self._work.labels(ids)
        return Filled(
            ids,
            torch.from_numpy(pixels).view(self._work.dtype).flatten(),
            None if labels is None else torch.from_numpy(labels),
            rows.view(ROW),
            shapes,
        )
