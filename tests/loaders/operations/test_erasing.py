"""RandomErasing against timm's and torchvision's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from helpers_operations import apply, draws_of, photo_like, target
from scipy import stats
from timm.data.random_erasing import RandomErasing as TimmErasing
from torchvision.transforms import v2

from patchmill.loaders.operations import RandomErasing, from_unit, to_unit
from patchmill.loaders.recipe import IMAGENET_MEAN, IMAGENET_STD

SIZE = 32


@pytest.mark.parametrize("count", [(1, 1), (1, 3), (2, 2)])
def test_rectangles_are_timms_for_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, count: tuple[int, int]
):
    """Make timm draw our numbers, call by call, as if each attempt had its own four."""
    operation = RandomErasing(area=(0.2, 0.9), count=count)
    theirs = TimmErasing(1, 0.2, 0.9, min_count=count[0], max_count=count[1], device="cpu")
    views = photo_like(40, SIZE)
    ours = apply(operation, views)
    numbers = draws_of(40, SIZE).numbers(1 + 40 * count[1])
    for view, erased, row in zip(views, ours, numbers, strict=True):
        script = Script(row)
        monkeypatch.setattr(random, "random", lambda: 0.0)
        monkeypatch.setattr(random, "uniform", script.uniform)
        monkeypatch.setattr(random, "randint", script.randint)
        assert torch.equal(theirs(view.clone()), erased)


class Script:
    """Random numbers from a row: of rectangles, tries, and four in each try."""

    def __init__(self, row: np.ndarray) -> None:
        self.first, self.tries = row[0], row[1:].reshape(-1, 10, 4)
        self.box, self.attempt, self.place = 0, -1, 4
        self.counted = False

    def next(self) -> float:
        return float(self.tries[self.box, self.attempt, self.place])

    def uniform(self, low: float, high: float) -> float:
        if self.place != 1:  # an area: the next try
            self.attempt, self.place = self.attempt + 1, 0
        number = low + self.next() * (high - low)
        self.place += 1
        return number

    def randint(self, low: int, high: int) -> int:
        if low:  # the count of rectangles
            return low + int(self.first * (high - low + 1))
        number = int(self.next() * (high + 1))
        self.place += 1
        if self.place == 4:
            self.box, self.attempt = self.box + 1, -1
        return number


def test_areas_and_ratios_follow_torchvisions_law():
    """Two samples of rectangles, by Kolmogorov and Smirnov's test."""
    law = {"scale": (0.02, 0.33), "ratio": (0.3, 3.3)}
    erased = apply(
        RandomErasing(area=law["scale"], ratio=law["ratio"]), torch.ones(1500, 3, 64, 64)
    )
    torch.manual_seed(0)
    theirs = v2.RandomErasing(p=1, **law)
    expected = torch.stack([theirs(torch.ones(3, 64, 64)) for _ in range(1500)])
    for measure in (heights, widths, tops, lefts):
        assert stats.ks_2samp(measure(erased), measure(expected)).pvalue > 0.001, measure


def rows_and_columns(views: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    zero = (views[:, 0] == 0).numpy()
    return zero.any(2), zero.any(1)


def heights(views: torch.Tensor) -> Any:
    return rows_and_columns(views)[0].sum(1)


def widths(views: torch.Tensor) -> Any:
    return rows_and_columns(views)[1].sum(1)


def tops(views: torch.Tensor) -> Any:
    return rows_and_columns(views)[0].argmax(1)


def lefts(views: torch.Tensor) -> Any:
    return rows_and_columns(views)[1].argmax(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8])
@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_fills(mode: Any, dtype: torch.dtype):
    unit = photo_like(60, SIZE)
    views = from_unit(unit, target(SIZE), dtype)
    erased = apply(RandomErasing(mode=mode, area=(0.3, 0.5)), views)
    changed = (erased != views).any(1)
    assert 0.2 < changed.float().mean() < 0.55 and erased.dtype == dtype
    inside = changed[:, None].expand(-1, 3, -1, -1)
    normal = to_unit(erased, target(SIZE))
    mean, std = (torch.tensor(of)[:, None, None] for of in (IMAGENET_MEAN, IMAGENET_STD))
    normal = ((normal - mean) / std)[inside]
    if mode == "const":
        assert normal.abs().max() <= (0.5 / 255 / 0.224 if dtype == torch.uint8 else 0)
    elif dtype != torch.uint8:
        assert abs(normal.mean()) < 0.25 and 0.7 < normal.std() < 1.3
    if mode == "rand" and dtype == torch.float32:
        colours = [
            len(view[:, at].unique(dim=1).T) for view, at in zip(erased, changed, strict=True)
        ]
        assert set(colours) == {1}
