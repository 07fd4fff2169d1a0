"""Which image lies behind a pasted one: of a few that are drawn, the one with least foreground.

DiLo's natural backgrounds have little in them that stands out. How much an image has of that its
mask tells, so that none needs to be decoded for the choice, and none is seen but the chosen one.
Where there are images for nothing else, such as textures, it is the one of those that is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.order import permutation
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import Source, open_source

CANDIDATES = 8
_UNKNOWN = 2.0  # more than any share: taken where nothing is known of the others either

Share = Callable[[int], float | None]  # of a sample's pixels, as `Masks.share` has it


def drawn(seed: int, epoch: int, id: int, count: int) -> list[int]:
    """The samples, of `count`, that may lie behind this one; some may be drawn twice."""
    return [
        int(draw.companion(np.uint64(seed), epoch, id, count, attempt))
        for attempt in range(CANDIDATES)
    ]


def plainest(id: int, candidates: Iterable[int], share: Share) -> int:
    """The one with least foreground, of equals the first; `id` itself if there is no other."""
    others = [other for other in candidates if other != id]
    return min(others, key=lambda other: _known(share(other)), default=id)


def _known(share: float | None) -> float:
    return _UNKNOWN if share is None else share


Given = str | Path | Sequence[str | Path] | Source


def opened(given: Given | None, recipe: Recipe) -> Source | None:
    """What the user gave for the recipe to paste on; None where that is the data itself."""
    if given is None:
        return None
    if not recipe.pastes_images:
        raise MillError(
            "backgrounds are for copy-paste on images, which the recipe "
            f"{recipe.name} has none of: set its background to 'images'"
        )
    source = open_source(given)
    if not len(source):
        raise MillError(f"{source.name} has no images to be backgrounds")
    return source


@dataclass(frozen=True, eq=False)
class Grounds:
    """Images that are there to lie behind others, with a ledger of their own."""

    source: Source
    ledger: Ledger
    seed: int

    def behind(self, epoch: int, id: int) -> int:
        """Which of them lies behind a sample of the data."""
        return int(draw.background(np.uint64(self.seed), epoch, id, len(self.source)))

    def substitute(self, epoch: int, id: int, attempt: int) -> int:
        """The one that is tried in the place of a bad one."""
        return permutation.substitute(self.seed, epoch, id, attempt, len(self.source))
