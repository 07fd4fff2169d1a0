"""Batches beyond their budget of pixels, on a GPU: made in parts, one after the other.

A part is a job of its own, as large as the budget allows, which is loaded, decoded and rendered as
any other; its views are then copied into those of the batch, and the memory of its images is free
for the next. The views are those of a batch that is made at once.
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


def render_in_parts(
    views: GpuViews,
    job: ArenaJob,
    new_part: Callable[[np.ndarray], ArenaJob],
    load: Callable[[ArenaJob], Decoded],
) -> None:
    """Make all views of a job anew: `new_part` is a job of some ids, `load` waits until it is.

    The budget lets each part have one sample or more.
    """
    most, pending = max(int(np.count_nonzero(~job.is_late)), 1), np.arange(len(job))
    job.forget_images()
    while len(pending):
        slots, rest = pending[:most], pending[most:]
        part = new_part(job.requested[slots])
        job.have_part(part)
        decoded = load(part)
        is_late = part.is_late
        part.keep(np.flatnonzero(~is_late))
        views.render_part(job, slots[~is_late], part, *decoded)
        pending = np.concatenate([slots[is_late], rest])
        del part, decoded
    views.finish(job)
