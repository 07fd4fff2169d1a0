"""Where the time went, and what to speed up."""

from __future__ import annotations

import pytest

from patchmill.loaders.stats import STAGES, Counters, collect


def counters(*milliseconds: int, items: int) -> Counters:
    """A worker that made `items` samples at so many milliseconds a stage for each."""
    its = Counters()
    for _ in range(items):
        stamps = [0]
        for length in milliseconds:
            stamps.append(stamps[-1] + length * 1_000_000)
        its.add(stamps)
    return its


def test_the_work_of_all_threads_adds_up():
    stats = collect([counters(1, 2, 3, 4, items=10), counters(1, 2, 3, 4, items=30)], 1.0, 0.5, 3)
    assert list(stats.stages) == list(STAGES)
    for stage, milliseconds in zip(stats.stages.values(), (1, 2, 3, 4), strict=True):
        assert stage.items == 40
        assert stage.seconds == pytest.approx(0.04 * milliseconds)
        assert stage.items_per_s == pytest.approx(1000 / milliseconds)
        assert stage.occupancy == pytest.approx(0.02 * milliseconds)
    assert (stats.workers, stats.bad, stats.wait_share) == (2, 3, 0.5)


@pytest.mark.parametrize("slowest", range(4))
def test_the_bottleneck_is_the_slowest_stage_where_training_waits(slowest: int):
    milliseconds = [1, 1, 1, 1]
    milliseconds[slowest] = 5
    waiting = collect([counters(*milliseconds, items=5)], 1.0, 0.3, 0)
    assert waiting.bottleneck == STAGES[slowest]
    assert f"bottleneck: {STAGES[slowest]}" in str(waiting)
    assert "waited 30.0% of 1.0 s" in str(waiting)
    assert collect([counters(*milliseconds, items=5)], 1.0, 0.01, 0).bottleneck == "training loop"


def test_nothing_done_is_no_division_by_zero():
    stats = collect([Counters()], 0.0, 0.0, 0)
    assert all(stage.items_per_s == stage.occupancy == 0 for stage in stats.stages.values())
    assert "0 bad samples" in str(stats)
