"""`DaliJob`: a batch that DALI decodes; `InFlight`: one that was submitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchmill.loaders.pipelines.dali.decoder import DecodedBatch, Refused
from patchmill.loaders.pipelines.gpu.arena import NOT_IN_ARENA, Arena, ArenaJob
from patchmill.loaders.pipelines.job import Countdown


class DaliJob(ArenaJob):
    """A batch that DALI decodes, except for the images that threads decoded into its arena."""

    least_chunk = 32  # makes the interpreter overhead of a chunk small per image

    def __init__(
        self,
        epoch: int,
        requested: np.ndarray,
        views: int,
        arena: Arena,
        ready: Countdown,
        most_pixels: int | None = None,
    ) -> None:
        super().__init__(epoch, requested, views, arena, most_pixels)
        self.ready = ready
        self.encoded: list[np.ndarray | None] = [None] * len(requested)

    @property
    def dali_slots(self) -> np.ndarray:
        """Slots that DALI decodes, in the order of submission."""
        return np.flatnonzero(self.locations[:, 0] == NOT_IN_ARENA)

    def postpone(self, slots: Sequence[int]) -> None:
        super().postpone(slots)
        for slot in slots:
            self.encoded[slot] = None

    def keep(self, slots: np.ndarray) -> None:
        super().keep(slots)
        self.encoded = [self.encoded[slot] for slot in slots.tolist()]

    def forget_images(self) -> None:
        super().forget_images()
        self.encoded = []


@dataclass(eq=False)
class InFlight:
    """A job whose encoded images, if it has any, were submitted to DALI."""

    job: DaliJob
    result: DecodedBatch | Refused | None = None
    fetched: bool = False
