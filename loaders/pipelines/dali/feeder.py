"""The thread that feeds DALI with batches of encoded images, and passes on what comes out.

It alone touches the decoder. Batches overlap: while one is decoded, the next is handed in.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from patchmill.loaders.decode.decoder import jpeg_frame, jpeg_segments
from patchmill.loaders.pipelines.crew import Jobs, Tasks
from patchmill.loaders.pipelines.dali import decoder, hardware_share
from patchmill.loaders.pipelines.dali.decoder import BatchDecoder, Decoded, Refused
from patchmill.loaders.pipelines.gpu.arena import (
    NOWHERE,
    Arena,
    PackedJob,
    Place,
    decode_into,
    pack_beside,
)
from patchmill.loaders.pipelines.job import Countdown
from patchmill.loaders.pipelines.worker import Taken, Work, Worker
from patchmill.loaders.stats import Counters

log = logging.getLogger("patchmill")

AHEAD = 2  # batches in DALI's hands
STAGE = "decode"
_TRIAL = 128  # images that show how much the GPU's JPEG unit should get
_ADOBE = 0xEE  # a JPEG marker: how the colours are stored, 0 for as they are
_TAIL = 4096  # bytes in which a whole JPEG has its end marker


class DaliJob(PackedJob):
    """A batch that DALI decodes, but for the images that lie in its arena."""

    def __init__(
        self, epoch: int, wanted: np.ndarray, views: int, arena: Arena, made: Countdown
    ) -> None:
        super().__init__(epoch, wanted, views, arena)
        self.made = made
        self.encoded: list[np.ndarray | None] = [None] * len(wanted)

    @property
    def slots(self) -> np.ndarray:
        """The places in the batch that DALI fills, in the order in which it gets them."""
        return np.flatnonzero(self.places[:, 0] == NOWHERE)


@dataclass(eq=False)
class Underway:
    """A job whose images were handed to the decoder, if it has any for it."""

    job: DaliJob
    result: Decoded | Refused | None = None
    is_here: bool = False


Finish = Callable[[DaliJob, Decoded | None, Tasks], None]


class DaliLine:
    def __init__(
        self, work: Work, hardware: float | None, finish: Finish, stream: torch.cuda.Stream | None
    ) -> None:
        if hardware is None and work.device.type == "cuda" and (samples := _samples(work)):
            hardware = hardware_share.hardware_share(work.device, work.workers, samples)
        self.counters = Counters((STAGE,))
        self._work, self._hardware, self._make, self._stream = work, hardware, finish, stream
        self._decoder = BatchDecoder(
            work.most, device=work.device, threads=work.workers, ahead=AHEAD, hardware=hardware
        )
        self._refused: set[int] = set()  # ids that DALI does not decode
        self._underway: deque[Underway] = deque()
        self._began, self._busy, self._broken = 0, False, False

    def usable(self) -> DaliLine:
        """This line, or another in its place if a thread is still at work with it, or it failed."""
        if not (self._busy or self._broken):
            return self
        line = DaliLine(self._work, self._hardware, self._make, self._stream)
        line.counters, line._refused = self.counters, self._refused
        return line

    # ---------------------------------------------------------------------------- what workers do

    def gather(self, worker: Worker, job: DaliJob, slot: int) -> None:
        """Read one sample, and decode it if it is nothing for DALI."""
        image = worker.obtain(job, slot, partial(self._take, job.arena), "inspect")
        if isinstance(image, Place):
            job.places[slot], job.encoded[slot] = image[:2], None
        else:
            job.places[slot], job.encoded[slot] = NOWHERE, image
        pack_beside(worker, job, slot, "inspect")

    def _take(self, arena: Arena, id: int, data: bytes) -> Taken:
        shape = None if id in self._refused else plain_jpeg(data)
        if shape is None:
            return Taken(*decode_into(arena, data))
        return Taken(*shape, np.frombuffer(data, np.uint8))

    # -------------------------------------------------------------------------- what the line does

    def run(self, jobs: Jobs, tasks: Tasks) -> None:
        """Bring jobs from gathered to made until there is a None among them."""
        self._busy = True
        waiting: deque[DaliJob] = deque()
        while True:
            while not jobs.empty() or not (waiting or self._underway):
                job = jobs.get()
                if job is None:
                    self._drop()
                    self._busy = False
                    return
                waiting.append(job)
                del job
            room = len(self._underway) < AHEAD
            if waiting and room and (not self._underway or waiting[0].gathered.over):
                self._submit(waiting.popleft())
            else:
                self._finish(tasks)

    def _submit(self, job: DaliJob) -> None:
        if error := job.gathered.wait():
            job.made.finish_one(error)
            return
        try:
            self._underway.append(self._handed_in(job))
        except BaseException as error:
            self._fail(job, error)

    def _finish(self, tasks: Tasks) -> None:
        underway = self._underway.popleft()
        try:
            decoded = self._decoded(underway, tasks)
            self._make(underway.job, decoded, tasks)
        except BaseException as error:
            self._fail(underway.job, error)

    def _fail(self, job: DaliJob, error: BaseException) -> None:
        """The decoder may be closed by now, and have lost the batches that it had in hand."""
        if not job.cancelled:
            self._broken = True
        for one in (*(underway.job for underway in self._underway), job):
            one.made.finish_one(error)
        self._underway.clear()

    def _handed_in(self, job: DaliJob) -> Underway:
        encoded = [one for one in job.encoded if one is not None]
        if not encoded:
            return Underway(job, is_here=True)
        self._began = self._began if self._underway else time.perf_counter_ns()
        self._decoder.submit(encoded)
        return Underway(job)

    def _decoded(self, underway: Underway, tasks: Tasks) -> Decoded | None:
        """The job's images, after those that DALI refuses are replaced or decoded elsewhere."""
        job = underway.job
        self._fetch(underway)
        while bad := self._wrong(job, underway.result):
            for later in self._underway:
                self._fetch(later)  # so that the decoder is free for this one
            self._gather_again(job, bad, tasks)
            underway = self._handed_in(job)
            self._fetch(underway)
        assert not isinstance(underway.result, Refused)
        return underway.result

    def _fetch(self, underway: Underway) -> None:
        if underway.is_here:
            return
        underway.is_here = True
        try:
            underway.result = self._decoder.take(self._stream)
        except Refused as refused:
            underway.result = refused
        now = time.perf_counter_ns()
        self.counters.add(STAGE, now - self._began, len(underway.job.slots))
        self._began = now

    def _wrong(self, job: DaliJob, result: Decoded | Refused | None) -> list[int]:
        """The slots that DALI could not decode, or not to the size that the header says."""
        slots = job.slots
        if result is None:
            return []
        if isinstance(result, Decoded):
            return slots[(result.images.shapes != job.shapes[slots]).any(1)].tolist()
        encoded = [one for one in job.encoded if one is not None]
        bad = decoder.refused(encoded, self._work.device, self._work.workers)
        if not bad:
            log.warning("threads decode %d images which DALI cannot: %s", len(slots), result)
        return (slots[bad] if bad else slots).tolist()

    def _gather_again(self, job: DaliJob, slots: list[int], tasks: Tasks) -> None:
        self._refused.update(job.ids[slots].tolist())
        job.gathered = again = Countdown(len(slots))
        if job.cancelled:
            again.cancel()
        for slot in slots:
            tasks.put((again, self.gather, job, slot))
        if error := again.wait():
            raise error

    def _drop(self) -> None:
        """Take what nobody wants any more out of the decoder."""
        try:
            for underway in self._underway:
                self._fetch(underway)
        except Exception:
            self._broken = True
        self._underway.clear()


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that every decoder reads alike; None for anything else.

    Not those of four components, those that hold RGB rather than YCbCr, and those that have no end.
    """
    if data.rfind(b"\xff\xd9", max(len(data) - _TAIL, 0)) < 0:
        return None
    for marker, at in jpeg_segments(data):
        if marker == _ADOBE and data[at : at + 7] == b"\x00\x0eAdobe" and not data[at + 13]:
            return None
    frame = jpeg_frame(data)
    return frame[:2] if frame and frame[2] in (1, 3) else None


def _samples(work: Work) -> list[np.ndarray]:
    """A few of the source's plain JPEGs."""
    count = work.source.sample_count
    if count is None:
        return []
    found = []
    for id in np.linspace(0, count - 1, min(_TRIAL, count)).astype(np.int64):
        try:
            data = work.source.read(int(id))
        except OSError:
            continue
        if plain_jpeg(data):
            found.append(np.frombuffer(data, np.uint8))
    return found
