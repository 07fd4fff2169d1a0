"""Sources of batches for a training loop: our loader, cached batches, torchvision in a DataLoader.

A feed stays open from its first turn to its last. A turn first discards what is queued, so that it
trains on batches made during the turn.
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

CEILING, PATCHMILL, TORCHVISION = "cached batches", "patchmill", "torchvision"
CACHED_BATCHES = 4
_LOADER_QUEUE = 3  # batches that an idle loader has made in advance


@dataclass(frozen=True)
class Feed:
    """Endless batches, epoch after epoch, of which up to `ahead` are queued."""

    name: str
    batches: Iterator[ViewBatch]
    ahead: int = 0

    def __iter__(self) -> Iterator[ViewBatch]:
        return self.batches

    def drop_queued(self) -> None:
        for _ in itertools.islice(self.batches, self.ahead):
            pass


def loader_feed(loader: Iterable[ViewBatch]) -> Feed:
    return Feed(PATCHMILL, _endless(loader), _LOADER_QUEUE)


def cached_feed(loader: Iterable[ViewBatch]) -> Feed:
    """Endless copies of the loader's first batches, with their strides."""
    first = itertools.islice(loader, CACHED_BATCHES)
    return Feed(CEILING, itertools.cycle([_copy(batch) for batch in first]))


def torchvision_feed(source: Source, recipe: Recipe, example: ViewBatch, workers: int) -> Feed:
    """The recipe's views from torchvision, with the device, dtype and strides of `example`.

    Raises MillError if torchvision is missing or cannot make the views.
    """
    device = example.crops()[0].device
    loader = DataLoader(
        LabelledViews(source, recipe),
        batch_size=len(example),
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    batches = (_to_view_batch(collated, example) for collated in _endless(loader))
    return Feed(TORCHVISION, batches, 2 * workers)


class LabelledViews(Dataset[tuple[int, int, list[Tensor]]]):
    """Id, label and all views of each image, for the default collate function."""

    def __init__(self, source: Source, recipe: Recipe) -> None:
        try:
            from patchmill.benchmarks.peers.torchvision import ViewTransform
        except ImportError:
            raise MillError("torchvision is not installed: pip install torchvision") from None
        self.source = source
        self.transforms = [
            ViewTransform(group, view) for group in recipe.views for view in range(group.count)
        ]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[int, int, list[Tensor]]:
        from PIL import Image

        labels = self.source.labels
        image = Image.open(io.BytesIO(self.source.read(index))).convert("RGB")
        views = [view for transform in self.transforms for view in transform(image)]
        return index, -1 if labels is None else int(labels[index]), views


@dataclass(eq=False, repr=False)
class CollatedBatch(ViewBatch):
    """A batch whose crops are separate tensors, as a DataLoader collates them."""

    crop_tensors: Sequence[Tensor] = ()

    def crops(self) -> list[Tensor]:
        return list(self.crop_tensors)

    def flat(self, group: str) -> Tensor:
        return torch.cat(self.crops())  # methods accept only recipes of one group


def _to_view_batch(collated: Sequence[Any], example: ViewBatch) -> CollatedBatch:
    ids, labels, views = collated
    (group,), (crop, *_) = example.views, example.crops()
    last = crop.is_contiguous(memory_format=torch.channels_last) and not crop.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    on_device = [view.to(crop.device, non_blocking=True) for view in views]
    return CollatedBatch(
        {group: on_device[0]},
        ids,
        labels.to(crop.device, non_blocking=True),
        example.rows,
        example.shapes,
        example.targets,
        # Converted on the device: converting while copying would be done by the CPU.
        [view.to(crop.dtype, memory_format=memory_format) for view in on_device],
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


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from batches
