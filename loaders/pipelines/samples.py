"""Read and decode samples: unreadable ones are recorded and substituted, masks are added."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from patchmill.kernels.views.decisions import ON_IMAGE, PASTE_NEVER
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import backgrounds
from patchmill.loaders.decode.decoder import BadImage, Decoder
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.order.permutation import MOST_SUBSTITUTES
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.job import Job
from patchmill.loaders.plan import draw
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.loaders.stats import Counters

if TYPE_CHECKING:
    from patchmill.loaders.decoded.store import Store


class LoadedImage(NamedTuple):
    """An image after loading: its size, and its pixels in the form that the pipeline chose."""

    height: int
    width: int
    data: Any  # an array, an allocation in an arena, or encoded bytes that DALI will decode

    def pixels(self) -> np.ndarray | None:
        """The image as uint8 [height, width, 3]; None while it is encoded."""
        memory = getattr(self.data, "memory", self.data)
        if memory is self.data and memory.ndim == 1:
            return None
        return memory.reshape(self.height, self.width, 3)


class PasteInputs(NamedTuple):
    """Inputs of copy-paste besides the image itself; both empty where nothing is pasted."""

    mask: np.ndarray  # uint8 [height, width] of any size
    background: LoadedImage


NO_PASTE = PasteInputs(np.empty((0, 0), np.uint8), LoadedImage(0, 0, np.empty((0, 0, 3), np.uint8)))

# From a sample's id and its encoded bytes, or its pixels [height, width, 3] of the decoded cache.
# May raise BadImage.
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
    """One thread's reader, with decode buffers of its own."""

    def __init__(self, config: PipelineConfig, counters: Counters) -> None:
        self._config, self._counters = config, counters
        self._decoder, self._background_decoder = Decoder(), Decoder()

    def read(self, job: Job, slot: int, load: Load, stage: str) -> tuple[int, LoadedImage]:
        """Read the sample of a slot, or its substitute: the id that was readable, and its image.

        `load` is timed as `stage`. A sample that cannot be read, or for which `load` raises
        BadImage, goes into the ledger, and its substitute is tried.
        """
        return self._read(self._config, job.epoch, int(job.requested[slot]), load, stage)

    def paste_inputs(self, job: Job, slot: int, load: Load, stage: str) -> PasteInputs:
        """Read the mask and the background of a planned sample, as its decision rows need them.

        Without a usable mask the rows are changed to paste nothing.
        """
        rows, masks = job.rows[slot], self._config.masks
        if masks is None or not rows["paste"].any():
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
        return PasteInputs(mask, self._read(images, job.epoch, background_id, load, stage)[1])

    def decode(self, id: int, data: bytes | np.ndarray) -> LoadedImage:
        """Decode into this thread's buffer; valid until its next image."""
        image = data if isinstance(data, np.ndarray) else self._decoder(data)
        return LoadedImage(image.shape[0], image.shape[1], image)

    def decode_background(self, id: int, data: bytes | np.ndarray) -> LoadedImage:
        """Decode into a second buffer; valid until its next background."""
        image = data if isinstance(data, np.ndarray) else self._background_decoder(data)
        return LoadedImage(image.shape[0], image.shape[1], image)

    def _read(
        self, images: SampleSet, epoch: int, requested: int, load: Load, stage: str
    ) -> tuple[int, LoadedImage]:
        source, ledger, store, id = images.source, images.ledger, images.decoded, requested
        read_ns = load_ns = 0
        for attempt in range(MOST_SUBSTITUTES):
            if id not in ledger:
                began = read = time.perf_counter_ns()
                try:
                    if store is not None and (pixels := store.image(id)) is not None:
                        self._counters.hits += 1
                        return id, load(id, pixels)
                    data, stamp = store.read(id) if store is not None else (source.read(id), 0)
                    read = time.perf_counter_ns()
                    image = load(id, data)
                    reason = None
                    if (side := max(image.height, image.width)) > draw.MAX_SIDE:
                        reason = f"a side of {side} pixels is too long"
                except BadImage as error:
                    reason = str(error)
                except OSError as error:
                    reason = error.strerror or str(error) or type(error).__name__
                read_ns, load_ns = read_ns + read - began, load_ns + time.perf_counter_ns() - read
                if reason is None:
                    if store is not None and (decoded := image.pixels()) is not None:
                        store.offer(id, decoded, stamp)
                    self._counters.add("read", read_ns)
                    self._counters.add(stage, load_ns)
                    return id, image
                ledger.record(id, source.where(id), reason)
            id = images.substitute(epoch, requested, attempt)
        raise MillError(
            f"no readable sample was found in {MOST_SUBSTITUTES} draws to replace sample "
            f"{requested}; see {ledger.path}"
        )


def _choose_background(
    config: PipelineConfig, epoch: int, id: int, foreground: backgrounds.ForegroundLookup
) -> tuple[SampleSet, int]:
    """The background of a sample's pasted views: the images it is one of, and its id there."""
    if config.backgrounds is not None:
        return config.backgrounds, config.backgrounds.background_id(epoch, id)
    candidates = config.source.background_candidates(config.seed, epoch, id)
    return config, backgrounds.least_foreground(id, candidates, foreground)
