"""Statistics of stages, and the bottleneck they name."""

from __future__ import annotations

import json

import pytest

from patchmill.loaders.stats import Counters, Stats, collect

STAGES = ("read", "decode", "plan", "render")


def counters(*milliseconds: int, items: int, stages: tuple[str, ...] = STAGES) -> Counters:
    """Counters of a lane with `items` samples, each taking this many milliseconds per stage."""
    lane = Counters(stages)
    for _ in range(items):
        for stage, length in zip(stages, milliseconds, strict=True):
            lane.add(stage, length * 1_000_000)
    return lane


def stats_of(crews: dict[str, list[Counters]], waited: float, bad: int = 0) -> Stats:
    return Stats(collect(crews, 1.0), 2, 1.0, waited, bad)


def test_the_work_of_all_lanes_adds_up():
    lanes = [counters(1, 2, 3, 4, items=10), counters(1, 2, 3, 4, items=30)]
    stages = collect({"workers": lanes}, 1.0)
    assert list(stages) == list(STAGES)
    for stage, milliseconds in zip(stages.values(), (1, 2, 3, 4), strict=True):
        assert (stage.items, stage.lanes, stage.crew) == (40, 2, "workers")
        assert stage.seconds == pytest.approx(0.04 * milliseconds)
        assert stage.items_per_s == pytest.approx(1000 / milliseconds)
        assert stage.occupancy == pytest.approx(0.02 * milliseconds)


@pytest.mark.parametrize("slowest", range(4))
def test_the_bottleneck_is_the_slowest_stage_where_training_waits(slowest: int):
    milliseconds = [1, 1, 1, 1]
    milliseconds[slowest] = 5
    crews = {"workers": [counters(*milliseconds, items=5)]}
    waiting = stats_of(crews, 0.3, bad=3)
    assert waiting.bottleneck == STAGES[slowest]
    assert f"bottleneck: {STAGES[slowest]}" in str(waiting)
    assert "waited 30.0% of 1.0 s, 3 bad samples" in str(waiting)
    assert waiting.wait_share == 0.3
    assert stats_of(crews, 0.01).bottleneck == "training loop"


def test_the_bottleneck_is_in_the_busiest_crew():
    """One decoder at 60 % holds up more than two workers at 40 %, one stage of which takes 35 %."""
    workers = [counters(35, 1, 1, 3, items=10) for _ in range(2)]
    decoder = [counters(60, items=10, stages=("decode",))]
    gpu = [counters(5, 40, items=10, stages=("upload", "views"))]
    workers[0].add("read", 0, 0)
    crews = {"workers": workers, "gpu": gpu, "decoder": decoder}
    stages = collect({"workers": workers, "decoder": decoder}, 1.0)
    assert stages["read"].seconds > stages["decode"].seconds
    assert stats_of(crews, 0.5).bottleneck == "decode"


def test_figures_are_plain_data_for_files():
    plain = json.loads(
        json.dumps(stats_of({"workers": [counters(1, 5, 1, 1, items=5)]}, 0.3).plain())
    )
    assert plain["bottleneck"] == STAGES[1] and plain["wait_share"] == 0.3
    assert plain["stages"][STAGES[1]] == {
        "items": 5, "seconds": 0.025, "lanes": 1, "occupancy": 0.025, "crew": "workers"
    }  # fmt: skip


def test_batches_are_counted_by_their_samples():
    lane = Counters(("render",))
    lane.add("render", 5_000_000, items=64)
    stage = collect({"gpu": [lane]}, 2.0)["render"]
    assert (stage.items, stage.seconds, stage.occupancy) == (64, 0.005, 0.0025)


def test_without_items_nothing_is_divided_by_zero():
    stats = Stats(collect({"workers": [Counters(STAGES)]}, 0.0), 1, 0.0, 0.0, 0)
    assert all(stage.items_per_s == stage.occupancy == 0 for stage in stats.stages.values())
    assert "0 bad samples" in str(stats)
