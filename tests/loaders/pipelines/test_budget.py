"""Batches of more pixels than may be decoded at a time: made bit by bit, and the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_odd_images import jpeg, odd
from helpers_pipelines import RECIPE, Masked, Pictures, make_loader

from patchmill.loaders.pipelines import config
from patchmill.loaders.pipelines.budget import PixelBudget
from patchmill.loaders.pipelines.gpu.arena import ArenaJob
from patchmill.loaders.recipe import CopyPaste, Recipe


class Mixed(Pictures):
    """Plain JPEGs, and every third image a file of another kind."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        kinds = ("cmyk", "png", "empty", "no end", "gif", "truncated")
        self.files = [
            odd()[kinds[n // 3 % len(kinds)]] if n % 3 == 0 else jpeg(n, 40 + n, 70 - n)
            for n in range(count)
        ]

    def read(self, index: int) -> bytes:
        return self.files[index]


PASTING = Recipe(
    (replace(RECIPE.views[0], paste=CopyPaste(p=0.8, background="images")),), name="pasting"
)


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("kind", ["mixed", "pasted"])
def test_batches_beyond_the_budget_are_the_same(
    kind: str, pipeline: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, recipe = (Mixed(24), RECIPE) if kind == "mixed" else (Masked(24), PASTING)
    late = list[int]()

    def postpone(job: Any, slots: Any) -> None:
        late.extend(slots)
        original(job, slots)

    original = ArenaJob.postpone
    monkeypatch.setattr(ArenaJob, "postpone", postpone)
    settings = {"batch_size": 12, "max_pixels": 6000}
    plain = make_loader(source, recipe, ledger=tmp_path / "plain", **settings)
    expected = [batch for _ in range(2) for batch in plain]
    assert not late
    monkeypatch.setattr(config, "MEAN_PIXELS", 1)
    monkeypatch.setattr(config, "LARGEST_IMAGES", 1)
    together = pixels_decoded_together(monkeypatch)
    limited = make_loader(source, recipe, ledger=tmp_path / "limited", **settings)
    found = [batch for _ in range(2) for batch in limited]
    assert bool(late) == bool(together) == (pipeline == "dali")
    assert max(together, default=0) < 2 * 6000  # the budget, and one image beyond it
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.ids, other.ids) and torch.equal(one.labels, other.labels)
        assert (one.rows == other.rows).all() and (one.shapes == other.shapes).all()
        for name, views in other.views.items():
            assert torch.equal(one.views[name], views)
    assert limited.ledger._bad.keys() == plain.ledger._bad.keys()


def pixels_decoded_together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pixels of the batches that DALI gets from now on."""
    from patchmill.loaders.decode.jpeg_header import jpeg_frame
    from patchmill.loaders.pipelines.dali.decoder import BatchDecoder

    together = list[int]()

    def submit(decoder: Any, encoded: Any) -> None:
        frames = [jpeg_frame(one.tobytes()) for one in encoded]
        together.append(sum(frame.height * frame.width for frame in frames if frame))
        original(decoder, encoded)

    original = BatchDecoder.submit
    monkeypatch.setattr(BatchDecoder, "submit", submit)
    return together


def test_a_budget_is_spent_by_the_image_that_goes_beyond_it() -> None:
    budget = PixelBudget(10)
    assert budget.take_first(np.array([3, 4])) == 2
    assert budget.take_first(np.array([2, 5, 1])) == 2
    assert budget.spent and budget.take_first(np.array([1])) == 0
    other = PixelBudget(10)
    other.take(9)
    assert not other.spent and other.take_first(np.array([1, 1], np.int32)) == 1 and other.spent
