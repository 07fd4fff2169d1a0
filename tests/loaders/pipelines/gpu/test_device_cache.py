"""The device cache on a GPU: views, streams and memory that the interpreter cannot test."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_gpu_pipelines import (
    SLEEP,
    Photos,
    assert_equal,
    copies,
    on_cpu,
    on_gpu,
    synchronised_batches,
)
from helpers_pipelines import RECIPE

from patchmill.loaders.common.errors import MillError

pytestmark = pytest.mark.gpu


class Counted(Photos):
    """Photos that count how often they are read."""

    reads = 0

    def read(self, index: int) -> bytes:
        self.reads += 1
        return super().read(index)


@pytest.mark.parametrize("cache", ["device:100MB", "device:1MB", "device:30KB"])
def test_views_are_those_without_a_cache(pipeline: str, cache: str) -> None:
    """In a cache that holds all images, some of them, and hardly any."""
    source = Counted(48)
    loader = on_gpu(source, RECIPE, 6, cache=cache)
    built = source.reads  # DALI looks at a few
    ours = synchronised_batches(loader, 3)
    assert_equal(ours, synchronised_batches(on_gpu(Photos(48), RECIPE, 6), 3))
    stats = loader.stats().cache
    assert source.reads - built == 3 * 48 - stats.hits
    assert stats.hits == 2 * stats.images
    assert stats.full == (stats.images < 48)
    assert (stats.images == 48) == (cache == "device:100MB")


def test_samples_are_those_of_the_cpu(pipeline: str) -> None:
    ours = on_gpu(Photos(50), RECIPE, 8, drop_last=False, cache="device:100MB")
    theirs = on_cpu(Photos(50), RECIPE, 8, drop_last=False)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.ids, other.ids)
            assert torch.equal(one.labels.cpu(), other.labels)
            assert (one.rows == other.rows).all()
            assert (one.shapes == other.shapes).all()


def test_images_are_copied_before_they_are_read(pipeline: str) -> None:
    """The side stream is held up while the next epoch is planned with what is still to come."""
    expected = synchronised_batches(on_gpu(Photos(12), RECIPE, 4), 4)
    loader, seen = on_gpu(Photos(12), RECIPE, 4, cache="device:100MB", prefetch=3), list[Any]()
    backend = getattr(loader.pipeline, "_backend", loader.pipeline)
    for _ in range(4):
        with torch.cuda.stream(backend._views.stream):
            torch.cuda._sleep(10 * SLEEP)
        for batch in loader:
            seen.append(copies(batch))
    assert_equal(seen, expected)


def test_a_training_stream_far_behind_reads_the_right_batches(pipeline: str) -> None:
    expected = synchronised_batches(on_gpu(Photos(48), RECIPE, 4), 3)
    loader, seen = on_gpu(Photos(48), RECIPE, 4, cache="device:100MB"), list[Any]()
    for _ in range(3):
        for batch in loader:
            torch.cuda._sleep(SLEEP)
            seen.append(copies(batch))
    assert_equal(seen, expected)


def test_closing_frees_the_memory_and_the_next_epoch_fills_it_anew(pipeline: str) -> None:
    expected = synchronised_batches(on_gpu(Photos(24), RECIPE, 4), 2)
    loader, seen = on_gpu(Photos(24), RECIPE, 4, cache="device:100MB"), list[Any]()
    for _ in range(2):
        for batch in loader:
            seen.append(copies(batch))
        del batch
        held = torch.cuda.memory_allocated()
        loader.close()
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() <= held - 100_000_000
        assert loader.stats().cache.images == 0
    assert_equal(seen, expected)


def test_a_cache_that_the_gpu_has_no_room_for() -> None:
    with pytest.raises(MillError, match=r"is larger than the .* that cuda:\d has free: take a sma"):
        on_gpu(Photos(8), cache="device:9TB")


def test_a_gpu_whose_memory_runs_out_goes_on(
    pipeline: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Something else takes the memory after the loader was built."""
    from patchmill.loaders.decoded import on_device
    from patchmill.loaders.pipelines.gpu import device_cache

    monkeypatch.setattr(on_device, "free_bytes", lambda _: 1 << 50)
    monkeypatch.setattr(device_cache, "STEP_BYTES", 1 << 48)
    loader = on_gpu(Photos(24), RECIPE, 4, cache="device:500TB")
    ours = synchronised_batches(loader, 2)
    assert_equal(ours, synchronised_batches(on_gpu(Photos(24), RECIPE, 4), 2))
    assert sum("has no memory left" in line for line in caplog.messages) == 1
    assert loader.stats().cache.images == 0
