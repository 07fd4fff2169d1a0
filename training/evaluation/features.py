"""What a network makes of every image of a data set, in evaluation mode and without a trace."""

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
    """Of each image one row, in the order of their ids."""

    rows: torch.Tensor  # [N, d] float32
    labels: torch.Tensor  # [N] int64; -1 where there is none
    ids: torch.Tensor  # [N] int64, on the CPU


UNSEEN = -2

Represent = Callable[[ViewBatch], torch.Tensor]  # a batch to [B, d]


def extract(
    network: nn.Module,
    loader: Loader,
    most: int | None = None,
    amp: torch.dtype | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Features:
    """`network` of the one view of each image; of `most` images, drawn by the loader's seed."""

    def represent(batch: ViewBatch) -> torch.Tensor:
        (view,) = batch.crops()
        return network(view)

    return gathered(represent, network, loader, most, amp, advance)


@torch.no_grad()
def gathered(
    represent: Represent,
    network: nn.Module,
    loader: Loader,
    most: int | None = None,
    amp: torch.dtype | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Features:
    """The same for what `represent` makes of a batch, with `network` in evaluation mode.

    Every rank ends up with the rows of all.
    """
    seen = images_seen(loader, most)
    wanted = np.sort(Order(images_seen(loader), loader.seed).ids(0, 0, seen))
    rows = labels = None
    with evaluating(network, loader):
        for batch in islice(loader, _steps(loader, len(wanted))):
            with torch.autocast(batch_device(batch), amp, enabled=amp is not None):
                found = represent(batch).float()
            if rows is None or labels is None:
                rows = found.new_zeros(len(wanted), found.shape[1])
                labels = torch.full((len(wanted),), UNSEEN, device=found.device)
            places, chosen = (it.to(rows.device) for it in _places(batch.ids.numpy(), wanted))
            rows[places] = found[chosen]
            labels[places] = -1 if batch.labels is None else batch.labels[chosen]
            advance(len(batch))
    assert rows is not None and labels is not None, "a loader has a batch for every rank"
    return _shared(rows, labels, torch.from_numpy(wanted))


def images_seen(loader: Loader, most: int | None = None) -> int:
    """How many images are represented."""
    source = loader.source
    count = source.sample_count
    if count is None:
        raise MillError(f"{source.name} is streamed, which cannot be evaluated: fetch the shards")
    return min(count, most or count)


@contextmanager
def evaluating(network: nn.Module, loader: Loader) -> Iterator[None]:
    """Modes of all its modules come back, the random generators and the loader's threads, too."""
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


def _steps(loader: Loader, images: int) -> int:
    """Of the loader's epoch, until so many images have been seen."""
    together = loader.state_dict()["global_batch"]
    return -(-images // together)


def _places(ids: np.ndarray, wanted: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the wanted ones of a batch's ids belong, and which of the batch they are."""
    places = np.searchsorted(wanted, ids).clip(max=len(wanted) - 1)
    chosen = np.flatnonzero(wanted[places] == ids)
    return torch.from_numpy(places[chosen]), torch.from_numpy(chosen)


def _shared(rows: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> Features:
    """Each row is of one rank, and zeros, with no label, on the others."""
    if distributed.current().size > 1:
        dist.all_reduce(rows)
        dist.all_reduce(labels, dist.ReduceOp.MAX)
    seen = labels > UNSEEN  # a bad image, in whose place there was another, has no row
    return Features(rows[seen], labels[seen], ids[seen.cpu()])
