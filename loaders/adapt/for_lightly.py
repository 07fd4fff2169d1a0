"""`as_lightly`: batches in the form of lightly's datasets and transforms."""

from __future__ import annotations

import functools

import torch

from patchmill.loaders.adapt.adapted import Adapted, check_loader
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.loader import Loader
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.stream.source import StreamSource


def as_lightly(loader: Loader) -> Adapted:
    """Batches as `(views, labels, filenames)`: a list of [B, 3, size, size] tensors, [B], names.

    Labels of images without classes are 0, as in lightly. An image's name is its path, or its shard
    and offset; in a stream, its number.
    """
    return Adapted(loader, functools.partial(_triple, source=check_loader(loader).source))


def _triple(
    batch: ViewBatch, source: Source | StreamSource
) -> tuple[list[torch.Tensor], torch.Tensor, list[str]]:
    labels = torch.zeros_like(batch.ids) if batch.labels is None else batch.labels
    name = str if source.sample_count is None else source.where  # a stream drops used samples
    return batch.crops(), labels, [name(id) for id in batch.ids.tolist()]
