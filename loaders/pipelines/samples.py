"""Read and decode samples, record and substitute unreadable ones, and add masks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from patchmill.kernels.views.decisions import ON_IMAGE, PASTE_NEVER
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.shortage import shortage
from patchmill.loaders.copypaste import backgrounds
from patchmill.loaders.copypaste.masks import Masks
from patchmill.loaders.decode.bad_image import check_pixel_count
from patchmill.loaders.decode.decoder import BadImage, Decoder
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.order.permutation import MOST_SUBSTITUTES
from patchmill.loaders.pipelines.budget import PixelBudget
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.job import Job
from patchmill.loaders.plan import draw
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.loaders.stats import Counters

if TYPE_CHECKING:
    from patchmill.loaders.decoded.store import Store


_ENCODED_BYTES = 1 << 20  # of small samples, which are read together


class LoadedImage(NamedTuple):
    """An image after loading: its size, and its pixels in the form that the pipeline chose."""

    height: int
    width: int
    data: Any  # an array, an allocation in an arena, or encoded bytes that DALI will decode

    def pixels(self) -> np.ndarray | None:
        """The image as uint8 [height, width, 3]; None while still encoded."""
        memory = getattr(self.data, "memory", self.data)
        if memory is self.data and memory.ndim == 1:
            return None
        return memory.reshape(self.height, self.width, 3)


class PasteInputs(NamedTuple):
    """Inputs of copy-paste besides the image itself; both empty if nothing is pasted."""

    mask: np.ndarray  # uint8 [height, width] of any size
    background: LoadedImage


NO_PASTE = PasteInputs(np.empty((0, 0), np.uint8), LoadedImage(0, 0, np.empty((0, 0, 3), np.uint8)))

# Takes a sample's id and its encoded bytes, or its pixels [height, width, 3] from the decoded
# cache. May raise BadImage.
Load = Callable[[int, bytes | np.ndarray], LoadedImage]


class SampleSet(Protocol):
    """Images that samples or backgrounds are read from, with substitutes for unreadable ones."""

    @property
    def source(self) -> Source | StreamSource: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def decoded(self) -> Store | None: ...

    def substitute(self, epoch: int, id: int, attempt: int) -> int: ...


class SampleReader:
    """One thread's reader, with its own decode buffers."""

    def __init__(self, config: PipelineConfig, counters: Counters) -> None:
        self._config, self._counters = config, counters
        self._decoder = Decoder(config.max_pixels)
        self._background_decoder = Decoder(config.max_pixels)
        self._encoded = np.empty(_ENCODED_BYTES, np.uint8)
        self._read_ns = self._load_ns = self._loaded = 0  # not yet counted
        self.pastes = config.masks is not None

    def read(
        self,
        job: Job,
        slots: Sequence[int],
        load: Load,
        stage: str,
        encoded: Sequence[bytes | np.ndarray | None] | None = None,
        budget: PixelBudget | None = None,
    ) -> tuple[list[int], list[LoadedImage]]:
        """Read the samples of these slots or their substitutes; return readable ids and images.

        Data that were read already are passed as `encoded`. `load` is timed as `stage`. A sample
        that cannot be read, or for which `load` raises BadImage, is recorded in the ledger, and its
        substitute is tried. Reading ends early if the budget runs out or the job is cancelled.
        """
        self._decoder.reuse()
        ids, images = list[int](), list[LoadedImage]()
        requested = job.requested[np.array(slots, np.int64)]
        if encoded is None:
            encoded = self._read_many(job, requested)
        samples = zip(requested.tolist(), encoded, strict=True)
        for _, (id, data) in zip(job.until_cancelled(slots), samples, strict=False):
            if budget is not None and budget.spent:
                break
            id, image = self._read(self._config, job, id, load, data)
            if budget is not None:
                budget.take(image.height * image.width)
            ids.append(id)
            images.append(image)
        self._count(stage)
        return ids, images

    def paste_inputs(
        self,
        job: Job,
        slots: Sequence[int],
        load: Load,
        stage: str,
        budget: PixelBudget | None = None,
    ) -> list[PasteInputs]:
        """Read the masks and backgrounds that the decision rows of planned samples need.

        There are fewer than slots if the budget runs out.
        """
        if self._config.masks is None:
            return [NO_PASTE] * len(slots)
        self._background_decoder.reuse()
        pastes = list[PasteInputs]()
        for slot in slots:
            if budget is not None and budget.spent:
                break
            inputs = self._paste_inputs(self._config.masks, job, slot, load, stage)
            pastes.append(inputs)
            if budget is not None:
                budget.take(inputs.background.height * inputs.background.width)
        return pastes

    def _paste_inputs(
        self, masks: Masks, job: Job, slot: int, load: Load, stage: str
    ) -> PasteInputs:
        """The inputs of one sample; without a usable mask its rows are changed to paste nothing."""
        rows = job.rows[slot]
        if not rows["paste"].any():
            return NO_PASTE
        began, id = time.perf_counter_ns(), int(job.ids[slot])
        mask, background = masks.plane(id), None
        if mask is not None and (rows["paste"] == ON_IMAGE).any():
            background = _choose_background(self._config, job.epoch, id, masks.foreground)
        self._counters.add("mask", time.perf_counter_ns() - began)
        if mask is None:
            rows["paste"] = PASTE_NEVER
            self._counters.unmasked += 1
            return NO_PASTE
        if background is None:
            return PasteInputs(mask, NO_PASTE.background)
        images, background_id = background
        _, image = self._read(images, job, background_id, load)
        self._count(stage)
        return PasteInputs(mask, image)

    def decode(self, id: int, data: bytes | np.ndarray) -> LoadedImage:
        """Decode into this thread's memory; valid until the next call to `read`."""
        image = data if isinstance(data, np.ndarray) else self._decoder.one_more(data)
        return LoadedImage(image.shape[0], image.shape[1], image)

    def decode_background(self, id: int, data: bytes | np.ndarray) -> LoadedImage:
        """Decode into other memory; valid until the next call to `paste_inputs`."""
        image = data if isinstance(data, np.ndarray) else self._background_decoder.one_more(data)
        return LoadedImage(image.shape[0], image.shape[1], image)

    def _count(self, stage: str) -> None:
        """Count the images loaded since the last call, as "read" and as `stage`."""
        self._counters.add("read", self._read_ns, self._loaded)
        self._counters.add(stage, self._load_ns, self._loaded)
        self._read_ns = self._load_ns = self._loaded = 0

    def _read_many(self, job: Job, ids: np.ndarray) -> Sequence[bytes | np.ndarray | None]:
        """A chunk's samples, if the source has their pixels or reads many in one call."""
        if job.raw is not None:
            return [job.raw.image(id) for id in ids.tolist()]
        if len(ids) == 1 or self._config.decoded is not None:
            return [None] * len(ids)
        began = time.perf_counter_ns()
        encoded = self._config.source.read_many(ids, self._encoded)
        self._read_ns += time.perf_counter_ns() - began
        return encoded

    def _read(
        self,
        images: SampleSet,
        job: Job,
        requested: int,
        load: Load,
        data: bytes | np.ndarray | None = None,
    ) -> tuple[int, LoadedImage]:
        """Load a sample, from `data` if already read, or else its first readable substitute."""
        source, ledger, id = images.source, images.ledger, requested
        store = images.decoded if data is None else None
        for attempt in range(MOST_SUBSTITUTES):
            if id not in ledger:
                if images is self._config and (cached := job.cached(id)) is not None:
                    self._counters.hits += 1
                    return id, LoadedImage(*cached)
                began = read = time.perf_counter_ns()
                try:
                    if store is not None and (pixels := store.image(id)) is not None:
                        height, width, _ = pixels.shape
                        check_pixel_count(height, width, self._config.max_pixels)
                        self._counters.hits += 1
                        return id, load(id, pixels)
                    if store is not None:
                        data, stamp = store.read(id)
                    elif data is None:
                        data = source.read(id)
                    read = time.perf_counter_ns()
                    image, reason = load(id, data), None
                    check_pixel_count(image.height, image.width, self._config.max_pixels)
                    if (side := max(image.height, image.width)) > draw.MAX_SIDE:
                        reason = f"a side of {side} pixels is too long"
                    elif store is not None and (decoded := image.pixels()) is not None:
                        store.offer(id, decoded, stamp)
                except BadImage as error:
                    reason = str(error)
                except OSError as error:
                    if shortage(error):  # not the sample's fault
                        raise
                    reason = error.strerror or str(error) or type(error).__name__
                self._read_ns += read - began
                self._load_ns += time.perf_counter_ns() - read
                if reason is None:
                    self._loaded += 1
                    return id, image
                ledger.record(id, source.where(id), reason)
            id, data = images.substitute(job.epoch, requested, attempt), None
        raise MillError(
            f"no readable sample was found in {MOST_SUBSTITUTES} draws to replace sample "
            f"{requested}; see {ledger.path}"
        )


def _choose_background(
    config: PipelineConfig, epoch: int, id: int, foreground: backgrounds.ForegroundLookup
) -> tuple[SampleSet, int]:
    """The background of a sample's pasted views: the set of images, and its id in it."""
    if config.backgrounds is not None:
        return config.backgrounds, config.backgrounds.background_id(epoch, id)
    candidates = config.source.background_candidates(config.seed, epoch, id)
    return config, backgrounds.least_foreground(id, candidates, foreground)
