"""Extract features of all images of a data set, in evaluation mode and without side effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.loader import Loader
from patchmill.loaders.order.permutation import Order
from patchmill.training.ranks import distributed


class Features(NamedTuple):
    """One row per image, in the order of ids."""

    rows: torch.Tensor  # [N, d] float32
    labels: torch.Tensor  # [N] int64; -1 for none
    ids: torch.Tensor  # [N] int64, on the CPU


MISSING = -2  # label of a row that no rank has filled

Embed = Callable[[ViewBatch], torch.Tensor]  # a batch to [B, d]


def extract(
    network: nn.Module,
    loader: Loader,
    limit: int | None = None,
    amp: torch.dtype | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Features:
    """Extract features of one view per image; of `limit` images, drawn with the loader's seed."""

    def embed(batch: ViewBatch) -> torch.Tensor:
        (view,) = batch.crops()
        return network(view)

    return extract_with(embed, network, loader, limit, amp, advance)


@torch.no_grad()
def extract_with(
    embed: Embed,
    network: nn.Module,
    loader: Loader,
    limit: int | None = None,
    amp: torch.dtype | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Features:
    """Extract features with `embed`, applied to each batch, and `network` in evaluation mode.

    Every rank gets all rows.
    """
    count = count_images(loader, limit)
    wanted = np.sort(Order(count_images(loader), loader.seed).ids(0, 0, count))
    rows = labels = None
    with evaluating(network, loader):
        for batch in islice(loader, _batches(loader, len(wanted))):
            with torch.autocast(batch_device(batch), amp, enabled=amp is not None):
                features = embed(batch).float()
            if rows is None or labels is None:
                rows = features.new_zeros(len(wanted), features.shape[1])
                labels = torch.full((len(wanted),), MISSING, device=features.device)
            targets, chosen = (index.to(rows.device) for index in _match(batch.ids.numpy(), wanted))
            rows[targets] = features[chosen]
            labels[targets] = -1 if batch.labels is None else batch.labels[chosen]
            advance(len(batch))
    assert rows is not None and labels is not None, "a loader has a batch for every rank"
    return _merge_ranks(rows, labels, torch.from_numpy(wanted))


def count_images(loader: Loader, limit: int | None = None) -> int:
    """Return the number of images that `extract` sees."""
    source = loader.source
    count = source.sample_count
    if count is None:
        raise MillError(f"{source.name} is streamed and cannot be evaluated: download the shards")
    return min(count, limit or count)


@contextmanager
def evaluating(network: nn.Module, loader: Loader) -> Iterator[None]:
    """Enter evaluation mode; on exit, restore modes and random generators and close the loader."""
    modes = {module: module.training for module in network.modules()}
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        network.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            loader.close()


def batch_device(batch: ViewBatch) -> str:
    return next(iter(batch.views.values())).device.type


def _batches(loader: Loader, images: int) -> int:
    """Return how many batches of the loader's epoch hold so many images, over all ranks."""
    global_batch = loader.state_dict()["global_batch"]
    return -(-images // global_batch)


def _match(ids: np.ndarray, wanted: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Match a batch's ids with the wanted ones: rows in the result, and indices in the batch."""
    rows = np.searchsorted(wanted, ids).clip(max=len(wanted) - 1)
    chosen = np.flatnonzero(wanted[rows] == ids)
    return torch.from_numpy(rows[chosen]), torch.from_numpy(chosen)


def _merge_ranks(rows: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> Features:
    """Sum over ranks: each row is filled on one rank, and zero on the others."""
    if distributed.current().size > 1:
        dist.all_reduce(rows)
        dist.all_reduce(labels, dist.ReduceOp.MAX)
    seen = labels > MISSING  # an unreadable image, replaced by another in its batch, has no row
    return Features(rows[seen], labels[seen], ids[seen.cpu()])
