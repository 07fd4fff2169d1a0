"""Batches beyond their budget of pixels, on a GPU: made in sub-batches, one after the other.

A sub-batch is a job of its own, as large as the budget allows, which is loaded, decoded and
rendered as any other; its views are then copied into those of the batch, and the memory of its
images is free for the next. The views are those of a batch that is made at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.kernels.views.gpu.tables import Images
from patchmill.loaders.pipelines.gpu.arena import ArenaJob

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.gpu.views import GpuViews

Decoded = tuple[Images | None, Any]  # images that lie in no arena, and what keeps them alive


def render_in_sub_batches(
    views: GpuViews,
    job: ArenaJob,
    new_sub_batch: Callable[[np.ndarray], ArenaJob],
    load: Callable[[ArenaJob], Decoded],
) -> None:
    """Make all views of a job anew: `new_sub_batch` is a job of some ids, `load` waits until it is.

    The budget lets each sub-batch have one sample or more.
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
