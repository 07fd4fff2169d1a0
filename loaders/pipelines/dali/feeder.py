"""The feeder thread of pipeline `dali`: submits encoded batches to DALI and passes on the images.

Only this thread uses the decoder. Batches overlap: while DALI decodes one, the next is submitted
and the previous one is rendered. A batch is rendered once it is among those that the crew wants
ahead.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from patchmill.kernels.views.gpu.tables import Images
from patchmill.loaders.decode.decoder import BadImage
from patchmill.loaders.decode.jpeg_header import plain_jpeg
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.crew import Tasks
from patchmill.loaders.pipelines.dali import decoder, hardware_share
from patchmill.loaders.pipelines.dali.decoder import (
    BatchDecoder,
    DecodedBatch,
    Refused,
    has_decodable_header,
)
from patchmill.loaders.pipelines.dali.gather import Gatherer
from patchmill.loaders.pipelines.dali.job import DaliJob, InFlight
from patchmill.loaders.pipelines.feeder_jobs import FeederJobs
from patchmill.loaders.pipelines.gpu.arena import (
    NOT_IN_ARENA,
    Allocation,
    Arena,
    decode_into,
    pack_paste_inputs,
    plan_cached,
)
from patchmill.loaders.pipelines.gpu.side_stream import SideStream
from patchmill.loaders.pipelines.job import Countdown
from patchmill.loaders.pipelines.samples import LoadedImage
from patchmill.loaders.pipelines.worker import Worker
from patchmill.loaders.stats import Counters

log = logging.getLogger("patchmill")

AHEAD = 2  # batches submitted to DALI and not yet taken
_STAGE, INSPECT = "decode", "inspect"
_PROBE_IMAGES = 128  # for measuring the best share of the GPU's JPEG engine


Render = Callable[[DaliJob, DecodedBatch | None, Tasks], None]
RenderInSubBatches = Callable[[DaliJob, Callable[[Any], Any]], None]  # how to load a sub-batch


class DaliFeeder:
    """Owns DALI's decoder; renders each decoded job with `render`, on `side` if there is one."""

    def __init__(
        self,
        config: PipelineConfig,
        counters: Counters,
        hardware: float | None,
        render: Render,
        side: SideStream | None,
        render_in_sub_batches: RenderInSubBatches | None = None,
    ) -> None:
        """Without `render_in_sub_batches`, `render` also makes the late samples of a job."""
        if config.device.type == "cuda":
            hardware = hardware_share.reachable(hardware)
        if hardware is None and config.device.type == "cuda" and (jpegs := _probe_jpegs(config)):
            hardware = hardware_share.hardware_share(config.device, config.workers, jpegs)
        self.counters = counters
        self._config, self._hardware, self._render, self._side = config, hardware, render, side
        self._render_in_sub_batches = render_in_sub_batches
        self._decoder = BatchDecoder(
            config.max_batch,
            device=config.device,
            threads=config.workers,
            ahead=AHEAD,
            hardware=hardware,
            checked=True,
        )
        self._gatherer = Gatherer(config, INSPECT)
        self._undecodable: set[int] = set()  # ids that DALI rejects; threads decode them
        self._waiting: deque[DaliJob] = deque()  # to be submitted, perhaps not loaded yet
        self._in_flight: deque[InFlight] = deque()
        self._began, self._busy, self._broken = 0, False, False

    def usable(self) -> DaliFeeder:
        """This feeder, or a replacement if it failed, or if an earlier iteration still uses it."""
        if not (self._busy or self._broken):
            return self
        feeder = DaliFeeder(
            self._config, self.counters, self._hardware, self._render, self._side,
            self._render_in_sub_batches,
        )  # fmt: skip
        feeder._undecodable, feeder._gatherer = self._undecodable, self._gatherer
        return feeder

    # ------------------------------------------------------------------------- in worker threads

    def load(self, worker: Worker, job: DaliJob, slots: range) -> None:
        """The workers' step: read samples, and decode those not meant for DALI.

        Samples in the device cache are only planned.
        """
        job.encoded[slots.start : slots.stop] = [None] * len(slots)
        cached, others = plan_cached(worker, job, slots)
        gathered, left, encoded = self._gatherer.gather(worker, job, others, self._undecodable)
        made: Sequence[int] = []
        if left:
            inspect = partial(self._inspect, job.arena)
            images = worker.load(job, left, inspect, INSPECT, encoded, job.budget)
            made = left[: len(images)]
            job.postpone(left[len(images) :])
            for slot, image in zip(made, images, strict=True):
                if isinstance(image, Allocation):
                    job.locations[slot] = image[:2]
                else:
                    job.locations[slot], job.encoded[slot] = NOT_IN_ARENA, image
        if worker.samples.pastes:
            pack_paste_inputs(worker, job, [*cached, *gathered, *made], INSPECT)

    def _inspect(self, arena: Arena, id: int, data: bytes | np.ndarray) -> LoadedImage:
        max_pixels = self._config.max_pixels
        if isinstance(data, np.ndarray):
            return decode_into(arena, data, max_pixels)
        shape = None if id in self._undecodable else plain_jpeg(data)
        encoded = np.frombuffer(data, np.uint8)
        if shape is None or not has_decodable_header(encoded, max_pixels):
            return decode_into(arena, data, max_pixels)
        store = self._config.decoded
        if store is not None and store.may_keep(shape[0] * shape[1] * 3):
            with suppress(BadImage):  # DALI may be able to read it, and decides
                return decode_into(arena, data, max_pixels)
        return LoadedImage(*shape, encoded)

    def clear(self) -> None:
        """Free memory that holds no encoded images."""
        self._gatherer.clear()

    # ---------------------------------------------------------------------- in the feeder thread

    def run(self, jobs: FeederJobs, tasks: Tasks) -> None:
        """Main loop of the thread: turn loaded jobs into ready ones until the iteration is over."""
        self._busy, made = True, 0
        while True:
            self._submit_loaded(jobs)
            if jobs.over:
                break
            if self._in_flight and made < jobs.allowed:
                self._complete_oldest(jobs, tasks)
                made += 1
            else:
                self._waiting.extend(jobs.receive(wait=True))
        self._drain()
        self._busy = False

    def _submit_loaded(self, jobs: FeederJobs) -> None:
        """Submit loaded jobs in order, as many as the decoder can accept."""
        while arrived := jobs.receive(wait=False):
            self._waiting += arrived
        while self._waiting and self._waiting[0].loaded.done and len(self._in_flight) < AHEAD:
            self._submit(self._waiting.popleft())

    def _submit(self, job: DaliJob) -> None:
        if error := job.loaded.wait():
            job.ready.count_down(error)
            return
        try:
            self._in_flight.append(self._submit_to_dali(job))
        except BaseException as error:
            self._fail(job, error)

    def _complete_oldest(self, jobs: FeederJobs, tasks: Tasks) -> None:
        oldest = self._in_flight.popleft()
        try:
            decoded = self._decoded(oldest, tasks)
            if self._render_in_sub_batches is not None and oldest.job.is_late.any():
                oldest.result = decoded = None
                self._render_in_sub_batches(oldest.job, partial(self._load_sub_batch, tasks))
                return
            self._submit_loaded(jobs)  # so that the decoder is busy while this thread renders
            self._render(oldest.job, decoded, tasks)
        except BaseException as error:
            self._fail(oldest.job, error)

    def _load_sub_batch(
        self, tasks: Tasks, sub_batch: DaliJob
    ) -> tuple[Images | None, DecodedBatch | None]:
        """Load and decode a sub-batch of a job while nothing else is in the decoder."""
        for slot in range(len(sub_batch)):
            tasks.put((sub_batch.loaded, self.load, sub_batch, range(slot, slot + 1)))
        if error := sub_batch.loaded.wait():
            raise error
        for later in self._in_flight:
            self._fetch(later)
        decoded = self._decoded(self._submit_to_dali(sub_batch), tasks)
        return (None, None) if decoded is None else (decoded.images, decoded)

    def _fail(self, job: DaliJob, error: BaseException) -> None:
        """Fail this job and all in flight: the decoder may be closed and their batches lost."""
        if not job.cancelled:
            self._broken = True
        for failed in (*(in_flight.job for in_flight in self._in_flight), job):
            failed.ready.count_down(error)
        self._in_flight.clear()

    def _submit_to_dali(self, job: DaliJob) -> InFlight:
        encoded = [data for data in job.encoded if data is not None]
        if not encoded:
            return InFlight(job, fetched=True)
        self._began = self._began if self._in_flight else time.perf_counter_ns()
        self._decoder.submit(encoded)
        return InFlight(job)

    def _decoded(self, in_flight: InFlight, tasks: Tasks) -> DecodedBatch | None:
        """The job's images, after workers have decoded or substituted those that DALI rejects."""
        job = in_flight.job
        self._fetch(in_flight)
        while bad := self._bad_slots(job, in_flight.result):
            for later in self._in_flight:
                self._fetch(later)  # so that the next batch to come out is this one
            self._reload(job, bad, tasks)
            in_flight = self._submit_to_dali(job)
            self._fetch(in_flight)
        assert not isinstance(in_flight.result, Refused)
        return in_flight.result

    def _fetch(self, in_flight: InFlight) -> None:
        if in_flight.fetched:
            return
        in_flight.fetched, stream = True, None
        if self._side is not None:
            self._side.wait_for_room()  # now, while the decoder still counts this batch
            stream = self._side.stream
        try:
            in_flight.result = self._decoder.take(stream)
        except Refused as refused:
            in_flight.result = refused
        now = time.perf_counter_ns()
        self.counters.add(_STAGE, now - self._began, len(in_flight.job.dali_slots))
        self._began = now

    def _bad_slots(self, job: DaliJob, result: DecodedBatch | Refused | None) -> list[int]:
        """Slots that DALI did not decode, or decoded to another size than in the header."""
        slots = job.dali_slots
        if result is None:
            return []
        if isinstance(result, DecodedBatch):
            return slots[(result.images.shapes != job.shapes[slots]).any(1)].tolist()
        encoded = [data for data in job.encoded if data is not None]
        bad = decoder.find_undecodable(encoded, self._config.device, self._config.workers)
        if not bad:
            log.warning("threads decode %d images that DALI cannot decode: %s", len(slots), result)
        return (slots[bad] if bad else slots).tolist()

    def _reload(self, job: DaliJob, slots: list[int], tasks: Tasks) -> None:
        """Have workers load these slots again, without DALI, and wait for them."""
        self._undecodable.update(job.ids[slots].tolist())
        job.loaded = reloaded = Countdown(len(slots))
        if job.cancelled:
            reloaded.cancel()
        for slot in slots:
            tasks.put((reloaded, self.load, job, range(slot, slot + 1)))
        if error := reloaded.wait():
            raise error

    def _drain(self) -> None:
        """Take the batches of a dismissed iteration out of the decoder."""
        try:
            for in_flight in self._in_flight:
                self._fetch(in_flight)
        except Exception:
            self._broken = True
        self._in_flight.clear()
        self._waiting.clear()


def _probe_jpegs(config: PipelineConfig) -> list[np.ndarray]:
    """A few plain JPEGs spread over the source."""
    count = config.source.sample_count
    if count is None:
        return []
    jpegs = []
    for id in np.linspace(0, count - 1, min(_PROBE_IMAGES, count)).astype(np.int64):
        try:
            data = config.source.read(int(id))
        except OSError:
            continue
        if plain_jpeg(data):
            jpegs.append(np.frombuffer(data, np.uint8))
    return jpegs
