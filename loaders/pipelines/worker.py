"""One thread's tools: it obtains samples, draws their plans and renders their views."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import ON_IMAGE, PASTE_NEVER
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import backgrounds
from patchmill.loaders.copypaste.backgrounds import Backgrounds, ForegroundLookup
from patchmill.loaders.decode.decoder import BadImage, Decoder
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.order.permutation import MOST_SUBSTITUTES
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.plan import draw as plan
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.loaders.stats import Counters

if TYPE_CHECKING:
    import torch

    from patchmill.kernels.views.decisions import Target
    from patchmill.loaders.pipelines.cpu.views import Canvas


@dataclass(frozen=True, eq=False)
class Work:
    """What a loader's pipeline has to do, and with what."""

    source: Source | StreamSource
    ledger: Ledger
    seed: int
    laws: np.ndarray
    targets: Sequence[Target]
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    workers: int
    prefetch: int  # batches made ahead
    most: int  # samples in a batch
    masks: Masks | None = None  # where the recipe pastes
    grounds: Backgrounds | None = None  # to be pasted on, where that is not the data itself

    def stages(self, *names: str) -> tuple[str, ...]:
        """Those, and the reading of masks where there are any."""
        return (*names, "mask") if self.masks else names

    @property
    def views(self) -> int:
        return len(self.laws)

    def labels(self, ids: np.ndarray) -> np.ndarray | None:
        return self.source.labels_of(ids)

    def substitute(self, epoch: int, id: int, attempt: int) -> int:
        """The sample that is tried in the place of a bad one."""
        return self.source.substitute(self.seed, epoch, id, attempt)

    def companion(
        self, epoch: int, id: int, foreground: ForegroundLookup
    ) -> tuple[Work | Backgrounds, int]:
        """The image that lies behind this sample's pasted views, and whose it is."""
        if self.grounds is not None:
            return self.grounds, self.grounds.background_id(epoch, id)
        drawn = self.source.background_candidates(self.seed, epoch, id)
        return self, backgrounds.least_foreground(id, drawn, foreground)


class Masks(Protocol):
    """What says which part of an image is foreground."""

    def plane(self, index: int) -> np.ndarray | None:
        """uint8 [height, width]; None where there is none, or none that is of use."""
        ...

    def foreground(self, index: int) -> float | None:
        """Of its pixels, those that are foreground; None where `plane` is."""
        ...


class Taken(NamedTuple):
    """What became of a sample's bytes."""

    height: int
    width: int
    image: Any


class Beside(NamedTuple):
    """What the views of a pasted image are made of beside it; empty where it is not pasted."""

    mask: np.ndarray  # uint8 [height, width] of any size
    companion: Taken  # the image behind it


NOTHING = Beside(np.empty((0, 0), np.uint8), Taken(0, 0, np.empty((0, 0, 3), np.uint8)))

Take = Callable[[int, bytes], Taken]
Step = Callable[["Worker", Any, int], None]  # on one sample of a job
Task = tuple[Countdown, Step, Job, int]  # what counts it, what to do, and on which sample


class Worker:
    """The tools of one thread: they outlive the epoch, so that their memory is touched once."""

    def __init__(self, work: Work, counters: Counters) -> None:
        self.counters, self.work = counters, work
        self.busy = False
        self._seed, self._scratch = np.uint64(work.seed), render.Scratch()
        self._decode, self._decode_beside = Decoder(), Decoder()
        self._largest = max(target.size for target in work.targets)

    def usable(self) -> Worker:
        """This worker, or another in its place if a thread is still at work with it."""
        return Worker(self.work, self.counters) if self.busy else self

    def run(self, tasks: SimpleQueue[Task | None]) -> None:
        """Work on tasks until there is a None among them."""
        self.busy = True
        while task := tasks.get():
            countdown, step, job, slot = task
            if not job.cancelled:
                try:
                    step(self, job, slot)
                    countdown.finish_one()
                except BaseException as error:
                    countdown.finish_one(error)
            # An idle thread, or the traceback of an error, must not keep a batch.
            del countdown, step, job, task
        self.busy = False

    def obtain(self, job: Job, slot: int, take: Take, stage: str) -> Any:
        """The image that `take` makes of the sample's bytes, and its decisions in the job's rows.

        A sample that cannot be read, or that `take` refuses with BadImage, is listed in the ledger,
        and the one that takes its place is tried.
        """
        id, taken = self._find(self.work, job.epoch, int(job.wanted[slot]), take, stage)
        self.plan(job, slot, id, taken)
        return taken.image

    def beside(self, job: Job, slot: int, take: Take, stage: str) -> Beside:
        """What an obtained sample needs to be pasted: its mask, and the image that lies behind it.

        Where there is no usable mask, it is not pasted.
        """
        rows, masks = job.rows[slot], self.work.masks
        if masks is None or not rows["paste"].any():
            return NOTHING
        began, id = time.perf_counter_ns(), int(job.ids[slot])
        mask, behind = masks.plane(id), None
        if mask is not None and (rows["paste"] == ON_IMAGE).any():
            behind = self.work.companion(job.epoch, id, masks.foreground)
        self.counters.add("mask", time.perf_counter_ns() - began)
        if mask is None:
            rows["paste"] = PASTE_NEVER
            self.counters.unmasked += 1
            return NOTHING
        if behind is None:
            return Beside(mask, NOTHING.companion)
        among, wanted = behind
        return Beside(mask, self._find(among, job.epoch, wanted, take, stage)[1])

    def _find(
        self, among: Work | Backgrounds, epoch: int, wanted: int, take: Take, stage: str
    ) -> tuple[int, Taken]:
        source, ledger, id = among.source, among.ledger, wanted
        reading = taking = 0
        for attempt in range(MOST_SUBSTITUTES):
            if id not in ledger:
                began = read = time.perf_counter_ns()
                try:
                    data = source.read(id)
                    read = time.perf_counter_ns()
                    taken = take(id, data)
                    reason = None
                    if (side := max(taken.height, taken.width)) > plan.MAX_SIDE:
                        reason = f"a side of {side} pixels is too long"
                except BadImage as error:
                    reason = str(error)
                except OSError as error:
                    reason = error.strerror or str(error) or type(error).__name__
                reading, taking = reading + read - began, taking + time.perf_counter_ns() - read
                if reason is None:
                    self.counters.add("read", reading)
                    self.counters.add(stage, taking)
                    return id, taken
                ledger.record(id, source.where(id), reason)
            id = among.substitute(epoch, wanted, attempt)
        raise MillError(
            f"no readable sample was found in {MOST_SUBSTITUTES} draws to replace sample {wanted}; "
            f"see {ledger.path}"
        )

    def decoded(self, id: int, data: bytes) -> Taken:
        """The image in this worker's own memory, valid until its next one."""
        image = self._decode(data)
        return Taken(image.shape[0], image.shape[1], image)

    def decoded_beside(self, id: int, data: bytes) -> Taken:
        """The same in other memory."""
        image = self._decode_beside(data)
        return Taken(image.shape[0], image.shape[1], image)

    def plan(self, job: Job, slot: int, id: int, taken: Taken) -> None:
        began = time.perf_counter_ns()
        height, width, _ = taken
        plan.draw_into(self.work.laws, self._seed, job.epoch, id, height, width, job.rows[slot])
        job.ids[slot], job.shapes[slot] = id, (height, width)
        self.counters.add("plan", time.perf_counter_ns() - began)

    def paint(
        self, image: np.ndarray, beside: Beside, rows: np.ndarray, canvas: Canvas, slot: int
    ) -> None:
        """All views of the image, as the rows have it."""
        began = time.perf_counter_ns()
        height, width, _ = image.shape
        mask, companion = beside.mask, beside.companion.image
        pool = self._scratch.fitting(height, width, self._largest, mask.shape, companion.shape)
        ending = (
            rows, canvas.slots, slot, canvas.half, self.work.channels_last, canvas.memory, pool,
        )  # fmt: skip
        if beside is NOTHING:
            render.render_image(image, *ending)
        else:
            render.render_pasted(image, mask, companion, *ending)
        self.counters.add("render", time.perf_counter_ns() - began)
