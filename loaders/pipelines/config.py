"""Configuration of one loader's pipeline: its data, decisions and outputs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from patchmill.loaders.decode.bad_image import MAX_PIXELS
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.stream.source import StreamSource

if TYPE_CHECKING:
    import torch

    from patchmill.kernels.views.decisions import Target
    from patchmill.loaders.copypaste.backgrounds import Backgrounds
    from patchmill.loaders.copypaste.masks import Masks
    from patchmill.loaders.decoded.store import Store
    from patchmill.loaders.pipelines.extra import Extra


LARGEST_IMAGES, MEAN_PIXELS = 4, 1 << 20  # limits on a batch's decoded images: number, or mean size


@dataclass(frozen=True, eq=False)
class PipelineConfig:
    """All settings of a pipeline, checked by `loaders.build`."""

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
    max_batch: int  # samples in a batch
    max_pixels: int = MAX_PIXELS  # of an image; larger ones are bad samples
    masks: Masks | None = None  # None: the recipe has no copy-paste
    backgrounds: Backgrounds | None = None  # None: the data themselves serve as backgrounds
    extra: Extra | None = None  # None: the recipe has no custom operations
    decoded: Store | None = None  # None: every image is decoded each time
    device_cache: int | None = None  # bytes of decoded images to keep on the GPU; None: no cache
    auto: frozenset[str] = frozenset()  # of "workers" and "prefetch": those that are tuned

    @property
    def batch_pixels(self) -> int:
        """Pixels of a batch that may be in memory, decoded, at the same time."""
        return max(LARGEST_IMAGES * self.max_pixels, MEAN_PIXELS * self.max_batch)

    @functools.cached_property
    def mapped_files(self) -> frozenset[str]:
        """Files that batches may read through a memory map."""
        paths = {str(self.decoded.path)} if self.decoded else set()
        for source in (self.source, self.backgrounds and self.backgrounds.source):
            while source is not None:
                paths.add(str(getattr(source, "path", "")))
                source = getattr(source, "_source", None)  # of a subset
        return frozenset(paths)

    @property
    def views(self) -> int:
        return len(self.laws)

    def labels(self, ids: np.ndarray) -> np.ndarray | None:
        return self.source.labels_of(ids)

    def substitute(self, epoch: int, id: int, attempt: int) -> int:
        """The sample to try in place of an unreadable one."""
        return self.source.substitute(self.seed, epoch, id, attempt)
