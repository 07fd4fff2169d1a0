"""Views made by worker processes of torch's DataLoader, the usual setup of most libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from patchmill.benchmarks.peers import Batches

Transform = Callable[[Any], list[Tensor]]  # a decoded image to its views


class FileViews(Dataset[list[Tensor]]):
    """The list of all views of each image; the default collate makes a list of batches."""

    def __init__(
        self, paths: list[str], decode: Callable[[str], Any], transforms: Sequence[Transform]
    ):
        self.paths, self.decode, self.transforms = paths, decode, transforms

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> list[Tensor]:
        image = self.decode(self.paths[index])
        return [view for transform in self.transforms for view in transform(image)]


class EndlessSampler(Sampler[int]):
    """One permutation after another, without ends of epochs, which would drain the workers."""

    def __init__(self, count: int):
        self.count = count

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self.count).tolist()


def endless(
    views: FileViews,
    workers: int,
    batch_size: int,
    start: Callable[[Any], None] | None = None,
    **options: Any,
) -> Batches:
    """Endless batches; every worker first calls `start` with its copy of `views`."""
    loader = DataLoader(
        views,
        batch_size=batch_size,
        sampler=EndlessSampler(len(views)),
        num_workers=workers,
        worker_init_fn=None if start is None else Start(start),
        multiprocessing_context="fork",  # as nothing here needs to be pickled
        **options,
    )
    yield from loader


class Start:
    """Call a function with the worker's own data set."""

    def __init__(self, start: Callable[[Any], None]):
        self.start = start

    def __call__(self, worker: int) -> None:
        info: Any = get_worker_info()
        self.start(info.dataset)
