"""Batches beyond their pixel budget, on a GPU: made in sub-batches, one after another.

A sub-batch is a separate job, as large as the budget allows, which is loaded, decoded and rendered
like any other; its views are then copied into those of the batch, and the memory of its images is
free for the next. The views are the same as without sub-batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.kernels.views.gpu.tables import Images
from patchmill.loaders.pipelines.gpu.arena import ArenaJob

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.gpu.views import GpuViews

Decoded = tuple[Images | None, Any]  # images that lie in no arena, and the object that owns them


def render_in_sub_batches(
    views: GpuViews,
    job: ArenaJob,
    new_sub_batch: Callable[[np.ndarray], ArenaJob],
    load: Callable[[ArenaJob], Decoded],
) -> None:
    """Remake all views of a job: `new_sub_batch` creates a job of some ids, `load` loads it.

    The budget allows each sub-batch at least one sample.
    """
    most, pending = max(int(np.count_nonzero(~job.is_late)), 1), np.arange(len(job))
    job.forget_images()
    while len(pending):
        slots, rest = pending[:most], pending[most:]
        sub_batch = new_sub_batch(job.requested[slots])
        job.have_sub_batch(sub_batch)
        decoded = load(sub_batch)
        is_late = sub_batch.is_late
        sub_batch.keep(np.flatnonzero(~is_late))
        views.render_sub_batch(job, slots[~is_late], sub_batch, *decoded)
        pending = np.concatenate([slots[is_late], rest])
        job.have_sub_batch(None)  # which would keep the memory of its images
        del sub_batch, decoded
    views.finish(job)
