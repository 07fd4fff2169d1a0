"""`Adapted`: a loader that yields its batches in another form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.loader import Loader
from patchmill.loaders.sampler import SamplerFace
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.loaders.stats import Stats


class Adapted:
    """Yields `form(batch)` for every batch of a loader; all else is delegated to the loader."""

    batch_sampler = None  # Lightning expects this attribute on anything that has a sampler

    def __init__(self, loader: Loader, form: Callable[[ViewBatch], Any]) -> None:
        self.loader, self.form = check_loader(loader), form

    def __iter__(self) -> Iterator[Any]:
        return map(self.form, self.loader)  # holds no batch, so that its memory can be reused

    def __len__(self) -> int:
        return len(self.loader)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.loader!r})"

    def set_epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)

    def close(self) -> None:
        self.loader.close()

    def stats(self) -> Stats:
        return self.loader.stats()

    @property
    def first_step(self) -> int:
        return self.loader.first_step

    @property
    def sampler(self) -> SamplerFace:
        return self.loader.sampler

    @property
    def dataset(self) -> Source | StreamSource:
        return self.loader.dataset

    @property
    def batch_size(self) -> int:
        return self.loader.batch_size

    @property
    def drop_last(self) -> bool:
        return self.loader.drop_last


def check_loader(loader: Any) -> Loader:
    """Return the loader; raise a MillError for anything else."""
    if isinstance(loader, Loader):
        return loader
    raise MillError(f"a loader made by loaders.build is needed here, not a {type(loader).__name__}")


def only_view(loader: Loader, host: str) -> str:
    """Name of the single view's group; MillError if the recipe makes several views per image."""
    recipe = check_loader(loader).recipe
    if recipe.total == 1:
        return recipe.views[0].name
    raise MillError(
        f"{host} takes one view per image, but the recipe {recipe} makes {recipe.total}: "
        "build the loader with a recipe of one view, or use as_tuples"
    )
