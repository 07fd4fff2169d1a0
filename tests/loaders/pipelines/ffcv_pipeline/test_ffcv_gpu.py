"""Pipeline `ffcv` on a GPU: the batches of pipeline `threads` there, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helpers_ffcv  # noqa: F401  # skips without FFCV
import pytest
import torch
from helpers_beton import overwrite_image
from helpers_gpu_pipelines import SLEEP, assert_equal, copies, on_gpu, synchronised_batches
from helpers_masked_beton import pasting, write_masked

pytestmark = pytest.mark.gpu

RECIPE = pasting("grey", "texture", "images")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = write_masked(tmp_path / "masked.beton", 48)
    overwrite_image(path, 2 * 8, b"no picture")
    return path


@pytest.mark.parametrize("cache", [None, "device:10MB"])
def test_batches_equal_those_of_threads(path: Path, tmp_path: Path, cache: str | None) -> None:
    settings: dict[str, Any] = {"drop_last": False, "cache": cache, "dtype": torch.bfloat16}
    ours, theirs = (
        on_gpu(path, RECIPE, 7, pipeline=name, ledger=tmp_path / name, **settings)
        for name in ("ffcv", "threads")
    )
    for _ in range(2):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.ids, other.ids) and torch.equal(one.labels, other.labels)
            assert (one.rows == other.rows).all()
            for name, views in other.views.items():
                assert views.device.type == "cuda" and torch.equal(one.views[name], views)
    assert ours.stats().unmasked == theirs.stats().unmasked > 10
    assert ours.stats().stages["render"].crew == "gpu"


def test_a_training_stream_far_behind_reads_the_right_batches(path: Path) -> None:
    """Each batch is read long after the program has dropped it, and its arena is used again."""
    expected = synchronised_batches(on_gpu(path, RECIPE, 4, pipeline="threads"), 2)
    loader, seen = on_gpu(path, RECIPE, 4, pipeline="ffcv"), []
    for _ in range(2):
        for batch in loader:
            torch.cuda._sleep(SLEEP)
            seen.append(copies(batch))
    assert_equal(seen, expected)
