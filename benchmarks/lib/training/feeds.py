"""Who gives a training loop its batches: the project's loader, nobody (they are there already), or
torchvision in a DataLoader.

A feed stays open from its first turn to its last. What is ready in its queues between turns is
thrown away at the beginning of one, so that a turn trains on batches that were made in it.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import Source

CEILING, OURS, THEIRS = "cached batches", "patchmill", "torchvision"
CACHED = 4  # batches that come again and again
_QUEUE = 3  # batches that the project's loader has made when nobody takes any


@dataclass(frozen=True)
class Feed:
    """Batches without end, epoch after epoch; up to `ahead` of them lie ready."""

    name: str
    batches: Iterator[ViewBatch]
    ahead: int = 0

    def __iter__(self) -> Iterator[ViewBatch]:
        return self.batches

    def drop_ready(self) -> None:
        for _ in itertools.islice(self.batches, self.ahead):
            pass


def ours(batches: Iterable[ViewBatch]) -> Feed:
    return Feed(OURS, _forever(batches), _QUEUE)


def cached(batches: Iterable[ViewBatch]) -> Feed:
    """The first of them, in memory of their own, laid out as they came."""
    return Feed(CEILING, itertools.cycle([_copy(it) for it in itertools.islice(batches, CACHED)]))


def torchvisions(source: Source, recipe: Recipe, like: ViewBatch, workers: int) -> Feed:
    """The same views of the same images, of the type, and where, `like` has them.

    A MillError where it cannot be had: torchvision is missing, or cannot make the views.
    """
    device = like.crops()[0].device
    loader = DataLoader(
        Images(source, recipe),
        batch_size=len(like),
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    return Feed(THEIRS, (_placed(it, like) for it in _forever(loader)), 2 * workers)


class Images(Dataset[tuple[int, int, list[Tensor]]]):
    """Number, label and all views of an image; the default collate makes batches of each."""

    def __init__(self, source: Source, recipe: Recipe) -> None:
        try:
            from patchmill.benchmarks.peers.torchvision import Cut
        except ImportError:
            raise MillError("torchvision is not installed: pip install torchvision") from None
        self.source = source
        self.cuts = [Cut(group, view) for group in recipe.views for view in range(group.count)]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[int, int, list[Tensor]]:
        from PIL import Image

        labels = self.source.labels
        image = Image.open(io.BytesIO(self.source.read(index))).convert("RGB")
        views = [view for cut in self.cuts for view in cut(image)]
        return index, -1 if labels is None else int(labels[index]), views


@dataclass(frozen=True, eq=False)
class Listed(ViewBatch):
    """Of which each crop is a tensor of its own, as a DataLoader collates them."""

    listed: Sequence[Tensor] = ()

    def crops(self) -> list[Tensor]:
        return list(self.listed)

    def flat(self, group: str) -> Tensor:
        return torch.cat(self.crops())  # there is one group: methods take no more


def _placed(batch: Sequence[Any], like: ViewBatch) -> Listed:
    ids, labels, views = batch
    (group,), (crop, *_) = like.views, like.crops()
    last = crop.is_contiguous(memory_format=torch.channels_last) and not crop.is_contiguous()
    kept = torch.channels_last if last else torch.contiguous_format
    near = [view.to(crop.device, non_blocking=True) for view in views]
    return Listed(
        {group: near[0]},
        ids,
        labels.to(crop.device, non_blocking=True),
        like.rows,
        like.shapes,
        like.targets,
        # On their device: a conversion on the way there would be the CPU's work.
        [view.to(crop.dtype, memory_format=kept) for view in near],
    )


def _copy(batch: ViewBatch) -> ViewBatch:
    return replace(
        batch,
        views={name: views.clone() for name, views in batch.views.items()},
        ids=batch.ids.clone(),
        labels=None if batch.labels is None else batch.labels.clone(),
        rows=np.copy(batch.rows),
        shapes=np.copy(batch.shapes),
    )


def _forever(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from batches
