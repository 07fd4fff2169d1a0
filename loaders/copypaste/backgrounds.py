"""Backgrounds for copy-paste: of a few random candidates, the image with the least foreground.

DiLo pastes on natural images in which little stands out. A candidate's share of foreground comes
from its mask, so choosing costs no decoding, and only the chosen image is read. Given a data set of
backgrounds (textures, for example), one of its images is drawn at random instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.order import permutation
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import Source, open_source

if TYPE_CHECKING:
    from patchmill.loaders.decoded.store import Store

CANDIDATES = 8
NO_MASK = 2.0  # above any share: images without a usable mask are chosen last

ForegroundLookup = Callable[[int], float | None]  # share of a sample's pixels: `Masks.foreground`
BackgroundData = str | Path | Sequence[str | Path] | Source


def candidates(seed: int, epoch: int, id: int, count: int) -> list[int]:
    """Background candidates for sample `id` out of `count` samples; repeats are possible."""
    return [
        int(draw.background_candidate(np.uint64(seed), epoch, id, count, attempt))
        for attempt in range(CANDIDATES)
    ]


def least_foreground(id: int, candidates: Iterable[int], foreground: ForegroundLookup) -> int:
    """The candidate with the least foreground, the first on ties; `id` if there is no other."""

    def share(candidate: int) -> float:
        known = foreground(candidate)
        return NO_MASK if known is None else known

    return min((other for other in candidates if other != id), key=share, default=id)


def open_backgrounds(data: BackgroundData | None, recipe: Recipe) -> Source | None:
    """Open the data set of backgrounds; None if backgrounds come from the training data."""
    if data is None:
        return None
    if not recipe.pastes_images:
        raise MillError(
            "backgrounds are for copy-paste on images, which the recipe "
            f"{recipe.name} does not use: set its background to 'images'"
        )
    source = open_source(data)
    if not len(source):
        raise MillError(f"{source.name} has no images to use as backgrounds")
    return source


@dataclass(frozen=True, eq=False)
class Backgrounds:
    """A data set used for backgrounds only, with its own ledger of unreadable images."""

    source: Source
    ledger: Ledger
    seed: int
    decoded: Store | None = None  # the decoded cache is for the training data

    def background_id(self, epoch: int, id: int) -> int:
        """Draw the background for a sample of the training data."""
        return int(draw.background_id(np.uint64(self.seed), epoch, id, len(self.source)))

    def substitute(self, epoch: int, id: int, attempt: int) -> int:
        """Draw the background to try instead of an unreadable one."""
        return permutation.substitute(self.seed, epoch, id, attempt, len(self.source))
