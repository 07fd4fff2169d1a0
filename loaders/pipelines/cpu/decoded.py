"""Views of images that are already decoded: a chunk of samples at a time, in compiled code.

If a source or a cache holds decoded images, there is no interpreter overhead for each of them.
`DecodedChunks` looks up, plans and renders the samples of a chunk whose images are there, in three
compiled calls that release the GIL, and leaves the others to the stages of the pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.kernels.common.array_views import image_at
from patchmill.kernels.common.by_address import Callee, call
from patchmill.kernels.common.jit import jit
from patchmill.kernels.common.memory import load_fence
from patchmill.kernels.views.cpu import render
from patchmill.loaders.decoded.images import PLACE, DecodedImages
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.plan import draw

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.cpu.views import CpuJob
    from patchmill.loaders.pipelines.worker import Worker

MAX_SIDE, ABSENT = draw.MAX_SIDE, -1


class DecodedChunks:
    """Makes the views of samples with decoded images; building it compiles what it calls."""

    def __init__(self, config: PipelineConfig, example: CpuJob) -> None:
        """`example` is a job like those to come."""
        self._config, self._seed = config, np.uint64(config.seed)
        self._largest = max(target.size for target in config.targets)
        buffer, row = example.buffer, example.rows[0]
        image, no_bytes = np.zeros((1, 1, 3), np.uint8), np.empty(0, np.uint8)
        self._renderer = Callee(
            render.render_image, image, row, buffer.slots, 0, buffer.half, config.channels_last,
            buffer.memory, no_bytes,
        )  # fmt: skip
        no_images, no_slots = DecodedImages(no_bytes, np.empty(0, PLACE)), np.empty(0, np.int64)
        self._look_up(no_images, example, no_slots, no_slots)
        self._render(no_images, example, no_slots, no_slots, no_bytes)

    def make(self, worker: Worker, job: CpuJob, slots: range) -> Sequence[int]:
        """Make the views of samples with decoded images; return the slots of the others."""
        wanted = np.arange(slots.start, slots.stop)
        bad = self._in_ledger(job.requested[wanted])
        if bad is not None:
            bad, wanted = wanted[bad], wanted[~bad]
        source, store = self._config.source, self._config.decoded
        if (images := source.decoded_images()) is not None:
            wanted = self._make_from(images, worker, job, wanted)
        if store is not None and len(wanted):
            absent = self._make_from(store.images, worker, job, wanted)
            worker.counters.hits += len(wanted) - len(absent)
            wanted = absent
        return (wanted if bad is None else np.union1d(wanted, bad)).tolist()

    def _make_from(
        self, images: DecodedImages, worker: Worker, job: CpuJob, slots: np.ndarray
    ) -> np.ndarray:
        """Make the views of those slots whose images are in `images`; return the other slots."""
        began, offsets = time.perf_counter_ns(), np.empty(len(slots), np.int64)
        need = self._look_up(images, job, slots, offsets)
        if not need:
            return slots
        there = offsets != ABSENT
        made = slots[there]
        draw.draw_slots(
            self._config.laws, self._seed, job.epoch, made, job.ids, job.shapes, job.rows
        )
        planned = time.perf_counter_ns()
        self._render(images, job, made, offsets[there], worker.scratch.at_least(need))
        worker.counters.add("plan", planned - began, len(made))
        worker.counters.add("render", time.perf_counter_ns() - planned, len(made))
        return slots[~there]

    def _in_ledger(self, ids: np.ndarray) -> np.ndarray | None:
        """True for each of these samples that must be substituted; None for an empty ledger."""
        ledger = self._config.ledger
        if not len(ledger):
            return None
        return np.fromiter((id in ledger for id in ids.tolist()), np.bool_, len(ids))

    def _look_up(
        self, images: DecodedImages, job: CpuJob, slots: np.ndarray, offsets: np.ndarray
    ) -> int:
        return look_up(
            images.pixels.size, images.places, job.requested, slots, self._largest, offsets,
            job.ids, job.shapes, self._config.max_pixels,
        )  # fmt: skip

    def _render(
        self,
        images: DecodedImages,
        job: CpuJob,
        slots: np.ndarray,
        offsets: np.ndarray,
        scratch: np.ndarray,
    ) -> None:
        buffer, addresses = job.buffer, offsets + images.pixels.ctypes.data
        render_slots(
            self._renderer, addresses, job.shapes, slots, job.rows, buffer.slots, buffer.half,
            self._config.channels_last, buffer.memory, scratch,
        )  # fmt: skip


def has_decoded_images(config: PipelineConfig) -> bool:
    """True if the source holds decoded images, or a cache will."""
    return config.decoded is not None or config.source.decoded_images() is not None


@jit
def look_up(
    pixels: int,
    places: Any,
    requested: np.ndarray,
    slots: np.ndarray,
    largest: int,
    offsets: np.ndarray,
    ids: np.ndarray,
    shapes: np.ndarray,
    max_pixels: int,
) -> int:
    """Set the offset, id and shape of each slot's image, or the offset ABSENT if there is none.

    An image must lie within the `pixels` available bytes, and have at most `max_pixels`. Returns
    the scratch bytes for rendering views up to `largest`; 0 if there are no images. A place is read
    only once: the cache may forget it at any time, though never the pixels.
    """
    tallest, widest, need = np.int64(0), np.int64(0), 0
    for i in range(len(slots)):
        slot = slots[i]
        id = requested[slot]
        height = np.int64(places[id].height)
        load_fence()  # the height was written last
        width, offset = np.int64(places[id].width), np.int64(places[id].offset)
        fits = 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= max_pixels
        offsets[i] = ABSENT
        if fits and 0 <= offset <= pixels - 3 * height * width:
            offsets[i] = offset
            ids[slot], shapes[slot, 0], shapes[slot, 1] = id, height, width
            if height > tallest or width > widest:
                tallest, widest = max(height, tallest), max(width, widest)
                need = render.scratch_bytes(tallest, widest, largest)
    return need


@jit
def render_slots(
    renderer: Any,
    addresses: np.ndarray,
    shapes: np.ndarray,
    made: np.ndarray,
    rows: np.ndarray,
    slots: np.ndarray,
    half: bool,
    channels_last: bool,
    out: np.ndarray,
    scratch: np.ndarray,
) -> None:
    """Render the slots `made` of a batch from pixels at these addresses."""
    for i in range(len(made)):
        slot = made[i]
        image = image_at(addresses[i], np.int64(shapes[slot, 0]), np.int64(shapes[slot, 1]))
        call(renderer, (image, rows[slot], slots, slot, half, channels_last, out, scratch))
