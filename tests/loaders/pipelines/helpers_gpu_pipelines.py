"""Loaders on a GPU, photos to load, and copies of their batches."""

from __future__ import annotations

from typing import Any

import torch
from helpers_odd_images import jpeg, picture, saved
from helpers_pipelines import Pictures, make_loader

SLEEP = 20_000_000  # cycles: some hundredths of a second


def on_gpu(*arguments: Any, **settings: Any) -> Any:
    return make_loader(*arguments, **{"device": "cuda", **settings})


def on_cpu(*arguments: Any, **settings: Any) -> Any:
    return make_loader(*arguments, pipeline="threads", **settings)


class Photos(Pictures):
    """Smooth pictures of ragged sizes, most of them JPEGs; a few files stand for many samples."""

    def __init__(self, count: int, sizes: int = 24, plain: bool = False) -> None:
        super().__init__(count)
        self.files = []
        for n in range(sizes):
            height, width = 60 + 37 * n % 150, 50 + 53 * n % 170
            png = n % 5 == 4 and not plain
            made = saved(picture(n, height, width, 8), "PNG") if png else None
            self.files.append(made or jpeg(n, height, width, noise=8, quality=90))

    def read(self, index: int) -> bytes:
        return self.files[index % len(self.files)]


def copies(batch: Any) -> dict[str, torch.Tensor]:
    """Copy the views on the current stream, as training would read them."""
    return {name: views + 0 for name, views in batch.views.items()}


def assert_equal(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs)
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        for name in other:
            assert torch.equal(one[name], other[name]), f"{name} of batch {step}"


def synchronised_batches(loader: Any, epochs: int = 1) -> list[dict[str, torch.Tensor]]:
    """Copies of all batches, with the device synchronised before and after each copy."""
    found = []
    for _ in range(epochs):
        for batch in loader:
            torch.cuda.synchronize()
            found.append(copies(batch))
            torch.cuda.synchronize()
    return found
