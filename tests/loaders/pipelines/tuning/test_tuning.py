"""Tuned loaders: the crew changes on the way, and every sample stays what it is."""

from __future__ import annotations

import inspect
import itertools
import logging
import pickle
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers_pipelines import RECIPE, Pictures, make_loader, mill_threads
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill import loaders
from patchmill.loaders.common import threads
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines.tuning import controller, iteration
from patchmill.loaders.pipelines.tuning.controller import Decision, Setting

AUTO = {"workers": "auto", "prefetch": "auto"}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decide at every batch."""
    for name in ("SETTLING_S", "WINDOW_S", "LONGEST_S"):
        monkeypatch.setattr(iteration, name, 0.0)


def follow(monkeypatch: pytest.MonkeyPatch, plan: Sequence[Setting]) -> list[Setting]:
    """Have the crew changed as `plan` says, over and over; returns the settings that were tried."""
    tried: list[Setting] = []

    def decide(windows: Any, start: Setting, limits: Any) -> Decision:
        tried.append(windows[-1].setting)
        return Decision(plan[len(tried) % len(plan)])

    monkeypatch.setattr(controller, "decide", decide)
    return tried


def contents(batches: Any) -> list[tuple[list[int], torch.Tensor, list[int]]]:
    return [
        (batch.ids.tolist(), torch.cat([v.flatten() for v in batch.views.values()]),
         batch.labels.tolist())
        for batch in batches
    ]  # fmt: skip


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    assert [batch[0] for batch in ours] == [batch[0] for batch in theirs]
    assert [batch[2] for batch in ours] == [batch[2] for batch in theirs]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(ours, theirs, strict=True))


plans = st.lists(st.builds(Setting, st.integers(1, 6), st.integers(1, 5)), min_size=2, max_size=8)


@pytest.mark.usefixtures("pipeline", "hasty")
@settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(plans)
def test_no_sample_is_lost_doubled_or_changed(plan: list[Setting]) -> None:
    fixed = contents(make_loader(96, RECIPE))
    with pytest.MonkeyPatch.context() as patch:
        tried = follow(patch, plan)
        loader = make_loader(96, RECIPE, **AUTO)
        assert_same(contents(loader), fixed)
        assert len(tried) >= 3
        stats = loader.stats()
        assert stats.stages["plan"].items == 96
        assert all(0 <= stage.occupancy <= 1 for stage in stats.stages.values())
    assert not mill_threads()


@pytest.mark.usefixtures("pipeline", "hasty")
def test_the_state_is_that_of_a_fixed_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    follow(monkeypatch, [Setting(1, 1), Setting(5, 4), Setting(2, 3)])
    fixed = make_loader(96, RECIPE)
    whole = contents(fixed)
    tuned = make_loader(96, RECIPE, **AUTO)
    for _ in itertools.islice(tuned, 5):
        state = tuned.state_dict()
    assert state == {**fixed.state_dict(), "epoch": 0, "consumed": 20}
    for resumed in (make_loader(96, RECIPE, **AUTO), make_loader(96, RECIPE, workers=1)):
        resumed.load_state_dict(state)
        assert_same(contents(resumed), whole[5:])
    copy = pickle.loads(pickle.dumps(resumed))
    assert copy.epoch == resumed.epoch


@pytest.mark.usefixtures("pipeline", "hasty")
def test_left_at_any_moment_no_thread_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    follow(monkeypatch, [Setting(6, 5), Setting(1, 1), Setting(4, 2)])
    loader = make_loader(Pictures(96, lambda index: time.sleep(0.001)), **AUTO)
    for steps in (1, 2, 3, 5, 8, 13):
        for _ in itertools.islice(loader, steps):
            pass
        assert not mill_threads()
    assert sum(len(batch) for batch in loader) == 96


@pytest.mark.usefixtures("hasty")
def test_faults_are_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    follow(monkeypatch, [Setting(5, 3), Setting(1, 1)])

    def read(index: int) -> None:
        if index in (3, 17):
            raise OSError("gone")

    loader = make_loader(Pictures(48, read), **AUTO)
    for _ in range(2):
        assert sum(len(batch) for batch in loader) == 48
    assert loader.stats().bad == 2


@pytest.mark.usefixtures("hasty")
def test_threads_that_cannot_be_started_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    follow(monkeypatch, [Setting(2, 2), Setting(6, 2)])
    loader = make_loader(48, **AUTO)
    batches = iter(loader)
    seen = len(next(batches))
    with monkeypatch.context() as patch:
        patch.setattr(iteration.Crew, "set_workers", no_thread)
        seen += sum(len(batch) for batch in batches)
    assert seen == 48


def no_thread(*arguments: Any) -> None:
    raise RuntimeError("can't start new thread")


# ------------------------------------------------------------------------------ a run of its own


def test_a_slow_disk_is_settled_within_seconds_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(iteration, "WINDOW_S", 0.1)
    monkeypatch.setattr(iteration, "SETTLING_S", 0.05)
    monkeypatch.setattr(threads, "core_time", lambda: 2.0)
    loader = make_loader(Pictures(400, lambda index: time.sleep(0.01)), **AUTO)
    with caplog.at_level(logging.INFO, "patchmill"):
        while not loader.pipeline._tuning.settled:
            assert sum(len(batch) for batch in loader) == 400
    stats = loader.stats()
    assert stats.workers > 4
    assert stats.stages["read"].lanes == stats.workers
    (line,) = [record.message for record in caplog.records if ", because " in record.message]
    assert line.startswith(f"workers={stats.workers}, prefetch={loader.pipeline.prefetch}, because")
    assert "reads waited for" in line and "images/s" in line and "\n" not in line
    assert not mill_threads()


def test_only_what_is_auto_is_changed() -> None:
    loader = make_loader(24, workers=3, prefetch="auto")
    limits = loader.pipeline._tuning.limits()
    assert limits.workers == (3, 3) and limits.prefetch[0] == 1 < limits.prefetch[1]
    loader = make_loader(24, workers="auto", prefetch=5)
    limits = loader.pipeline._tuning.limits()
    assert limits.prefetch == (5, 5) and limits.workers[1] >= 64
    assert make_loader(24).pipeline._tuning is None


# --------------------------------------------------------------------------------------- memory


def bounded(free: int, monkeypatch: pytest.MonkeyPatch, batch_size: int = 4) -> Any:
    monkeypatch.setattr(iteration.host, "free_memory", lambda: free)
    monkeypatch.setattr(threads, "core_time", lambda: 2.0)
    loader = make_loader(24, RECIPE, batch_size, workers="auto", prefetch="auto")
    return loader.pipeline._tuning


def test_batches_ahead_take_their_share_of_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = 4 * (2 * 3 * 16**2 + 3 * 3 * 9**2) * 4
    for room_for in (1, 3, 5, 9, 30):
        tuned = bounded(8 * batch * room_for, monkeypatch)
        most = tuned.limits().prefetch[1]
        assert most == min(max(room_for - iteration.IN_USE, 1), iteration.MOST_PREFETCH)
        assert tuned.setting.prefetch == min(2, most)


def test_large_images_bound_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = bounded(2**30, monkeypatch)
    assert tuned.limits().workers == (1, iteration.MOST_WORKERS)
    tuned.observe(np.array([[100, 100], [1000, 2000]], np.int32))
    assert tuned.limits().workers == (1, 2**30 // 8 // (iteration.BUFFERS * 6_000_000))
    tuned.observe(np.full((4, 2), 30_000, np.int32))
    assert tuned.limits().workers[1] <= 2  # one a core is what a fixed loader has


def test_ranks_share_the_memory_and_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "core_time", lambda: 16.0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(iteration.host, "free_memory", lambda: 2**30)
    assert make_loader(24, **AUTO).pipeline._tuning.limits().cores == 4
    assert make_loader(24, **AUTO).pipeline._tuning._free == 2**28


def test_an_unknown_memory_is_taken_as_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bounded(0, monkeypatch)._free == iteration.UNKNOWN_MEMORY  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ bad inputs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": "all"}, "workers must be a whole number from 1 to 1024, or 'auto', not 'all'"),
        ({"workers": "Auto"}, "workers must be a whole number from 1 to 1024, or 'auto', not 'Au"),
        ({"workers": 0}, "workers must be a whole number from 1 to 1024, or 'auto', not 0"),
        ({"prefetch": "many"}, "prefetch must be a whole number of at least 1, or 'auto', not 'ma"),
        ({"prefetch": None}, "prefetch must be a whole number of at least 1, or 'auto', not None"),
        ({"batch_size": "auto"}, "batch_size must be a whole number of at least 1, not 'auto'"),
    ],
)
def test_anything_else_is_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MillError) as error:
        loaders.build(Pictures(24), RECIPE, **{"batch_size": 4, **arguments})
    assert str(error.value).startswith(message)


def test_defaults_are_fixed() -> None:
    parameters = inspect.signature(loaders.build).parameters
    assert parameters["workers"].default is None and parameters["prefetch"].default == 2
