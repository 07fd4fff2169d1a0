"""Stages and times in `loader.stats()`."""

from __future__ import annotations

import time

import pytest
from helpers_pipelines import Pictures, make_loader

pytestmark = pytest.mark.usefixtures("pipeline")


def test_every_sample_is_counted_once_over_all_epochs(pipeline: str) -> None:
    loader = make_loader(workers=3)
    assert loader.stats().seconds == 0
    for epoch in range(1, 4):
        for _ in loader:
            pass
        stats = loader.stats()
        items = {name: stage.items for name, stage in stats.stages.items()}
        decoded = items.pop("decode")  # by DALI: those that are JPEGs
        assert decoded == (24 if pipeline == "threads" else 8) * epoch
        assert set(items.values()) == {24 * epoch}
        assert all(stage.seconds > 0 for stage in stats.stages.values())
        busy = sum(stage.seconds for stage in stats.stages.values())
        assert busy <= stats.seconds * stats.workers
        assert 0 < stats.waited <= stats.seconds
    assert (stats.workers, stats.bad) == (3, 0)


def test_stats_are_up_to_date_within_an_epoch() -> None:
    loader, consumed, seconds = make_loader(), 0, 0.0
    for batch in loader:
        consumed += len(batch)
        stats = loader.stats()
        assert stats.stages["render"].items >= consumed
        assert stats.seconds > seconds
        assert stats.waited <= stats.seconds
        assert all(stage.occupancy <= 1 for stage in stats.stages.values())
        seconds = stats.seconds
    after = loader.stats().seconds
    assert loader.stats().seconds == after >= seconds


def test_a_slow_disk_is_the_bottleneck() -> None:
    loader = make_loader(Pictures(24, lambda index: time.sleep(0.005)))
    for _ in loader:
        pass
    assert loader.stats().bottleneck == "read"
    assert loader.stats().wait_share > 0.02


def test_two_iterations_at_once_are_not_counted_twice() -> None:
    loader = make_loader()
    first = iter(loader)
    next(first)
    for _ in loader:
        pass
    before = loader.stats().seconds
    first.close()
    assert loader.stats().seconds >= before
    assert loader.stats().waited <= loader.stats().seconds
