"""The training benchmark: feeds, turns, reports and errors."""

from __future__ import annotations

import json
import multiprocessing
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patchmill import loaders
from patchmill.benchmarks import training
from patchmill.benchmarks.lib.training import feeds, gpu_waits, measure, steps, table
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.loader import Loader
from patchmill.loaders.recipe import Recipe, Spread, Views
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import open_source
from patchmill.training import measurements
from patchmill.training.config import compose
from patchmill.training.ranks import distributed
from patchmill.training.ranks.failures import StackDump
from patchmill.training.runtime import setup
from patchmill.training.runtime.metrics import LossMeter
from patchmill.training.runtime.state import State

SCENES = "scenes(count=12, size=32)"
OVERRIDES = [
    "method=moco",
    "scale=demo",
    "size=32",
    "train.batch_size=4",
    "train.workers=1",
    "train.device=cpu",
    "method.queue=16",
    "method.split_bn=0",
    f"data.train={SCENES}",
]


@pytest.fixture(autouse=True)
def temporary_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["training.py", *arguments])
    training.main()


# ------------------------------------------------------------------------------------ the whole run


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_all_feeds_are_reported(device: str, tmp_path, monkeypatch, capsys):
    out, overrides = tmp_path / "out.json", [*OVERRIDES, f"train.device={device}"]
    run(monkeypatch, *overrides, "--steps", "2", "--rounds", "2", "--json", str(out))
    result = json.loads(out.read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == [feeds.CEILING, feeds.PATCHMILL, feeds.TORCHVISION]
    assert rows[feeds.CEILING]["of_ceiling"] == 1
    for row in rows.values():
        assert row["images_per_s"] > 0 and row["of_ceiling"] > 0 and 0 <= row["wait"] <= 1
        assert row["cores_busy"] > 0
        assert list(row["step_ms"]) == list(steps.PARTS)
        assert row["step_ms"][steps.PASSES] > 0 and row["step_ms"][steps.OPTIMISER] > 0
        assert ("gpu_mib" in row) == (device == "cuda")
    assert result["memory_mib"]["process_at_most"] > 0
    assert result["settings"] == overrides and result["batch_size"] == 4
    config = compose.compose(overrides)
    known = result["conditions"]
    assert known["network"] == measurements.network(config, known["device"])
    assert (known["data"], known["batch_size"]) == ("scenes", 4)
    assert (result["steps"], result["rounds"], result["workers"]) == (2, 2, 1)
    printed = capsys.readouterr().out
    assert "moco, test_resnet, 32 pixels, batches of 4" in printed
    assert all(name in printed for name in rows)
    assert not multiprocessing.active_children()


def test_a_run_without_the_peer(tmp_path, monkeypatch):
    out, plot = tmp_path / "out.json", tmp_path / "out.png"
    small = ["--steps", "1", "--rounds", "1", "--peers", "", "--json", str(out)]
    run(monkeypatch, *OVERRIDES, *small, "method.views=dilo(size=32)", "--plot", str(plot))
    result = json.loads(out.read_text())
    assert [row["name"] for row in result["rows"]] == [feeds.CEILING, feeds.PATCHMILL]
    assert result["notes"] == [] and plot.read_bytes().startswith(b"\x89PNG")


def test_differences_of_the_peer_are_noted():
    (note,) = measure.differences(feeds.TORCHVISION, compose.compose([*OVERRIDES, "method=dilo"]))
    assert note == "does not paste on other backgrounds"
    assert measure.differences(feeds.TORCHVISION, compose.compose(OVERRIDES)) == []


# -------------------------------------------------------------------------------------------- feeds


@pytest.mark.parametrize("last", [False, True])
def test_cached_batches_are_copies_of_the_first_batches(last: bool) -> None:
    class Counted(list):
        taken = 0

        def __iter__(self) -> Iterator[ViewBatch]:
            for batch in loader:
                self.taken += 1
                yield batch

    loader = _loader(channels_last=last, count=24)
    counted = Counted()
    feed = feeds.cached_feed(counted)
    first = [next(feed.batches) for _ in range(feeds.CACHED_BATCHES)]
    before = [batch.crops()[0].clone() for batch in first]
    for _ in loader:  # overwrites the loader's memory
        pass
    again = [next(feed.batches) for _ in range(feeds.CACHED_BATCHES)]
    assert counted.taken == feeds.CACHED_BATCHES
    assert len({tuple(batch.ids.tolist()) for batch in first}) == feeds.CACHED_BATCHES
    for one, other, crop in zip(first, again, before, strict=True):
        assert one is other and torch.equal(one.crops()[0], crop)
    fresh, copied = next(iter(loader)), first[0]
    strides = [crop.stride() for crop in fresh.crops()]
    assert [crop.stride() for crop in copied.crops()] == strides
    assert copied.flat("views").shape == fresh.flat("views").shape


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("views", ["moco_v2(size=32)", "emp_ssl(patches=3, size=16)"])
def test_batches_of_torchvision_look_like_ours(views: str, last: bool) -> None:
    loader = _loader(views, channels_last=last)
    example = next(iter(loader))
    feed = feeds.torchvision_feed(open_source(SCENES), load_recipe(views), example, workers=1)
    batches = [next(feed.batches) for _ in range(4)]  # an epoch, and the beginning of another
    for batch in batches:
        assert len(batch) == len(example)
        assert [it.shape for it in batch.crops()] == [it.shape for it in example.crops()]
        assert [it.stride() for it in batch.crops()] == [it.stride() for it in example.crops()]
        assert {it.dtype for it in batch.crops()} == {example.crops()[0].dtype}
        (group,) = batch.views
        assert batch.flat(group).shape == example.flat(group).shape
        labels = loader.source.labels
        assert labels is not None and batch.labels is not None
        assert batch.labels.tolist() == labels[batch.ids].tolist()
        assert 0.2 < float(torch.stack(batch.crops()).std()) < 3  # normalised
    assert sorted(torch.cat([batch.ids for batch in batches[:3]]).tolist()) == list(range(12))


def test_queued_batches_are_dropped() -> None:
    feed = feeds.Feed("numbers", iter(range(9)), ahead=3)  # type: ignore[arg-type]
    feed.drop_queued()
    assert next(feed.batches) == 3


# -------------------------------------------------------------------------------------------- turns


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    world = distributed.connect("cpu")
    config = compose.compose([*OVERRIDES, "train.accumulate=2"])
    with setup.build_run(config, world, tmp_path) as ready:
        yield ready
    distributed.close()


def test_a_turn_trains_and_times_its_steps(state: State, tmp_path: Path, clock: Any) -> None:
    requests, batch = [], next(iter(state.loader))

    def batches() -> Iterator[ViewBatch]:
        while True:
            requests.append(state.step)
            clock.now += 3
            yield batch

    weights = [it.clone() for it in state.method.parameters()]
    loss = state.model.register_forward_hook(lambda *_: clock.later(1.5))
    stacks = StackDump(tmp_path)
    turn = steps.run_turn(state, stacks, feeds.Feed("slow", batches()), warm_up=1, steps=3)
    stacks.close()
    loss.remove()
    assert state.step == 4 and requests == [0, 0, 1, 1, 2, 2, 3, 3]
    assert turn.seconds == {steps.WAIT: 6, steps.PASSES: 3, steps.OPTIMISER: 0, steps.REST: 0}
    assert turn.wait == 6 / 9
    assert turn.images_per_s == pytest.approx(3 * 2 * 2 / 27)
    trained = [it for it in state.method.parameters() if it.requires_grad]
    assert trained and not all(map(torch.equal, weights, state.method.parameters()))


def test_waits_for_the_gpu_are_counted_by_the_line_that_waits(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a feed that warns as torch does on a GPU; no step is logged, as logging would wait."""
    modes, batch = list[str](), next(iter(state.loader))

    def wait() -> None:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    def batches() -> Iterator[ViewBatch]:
        while True:
            wait()
            warnings.warn("something else", stacklevel=1)
            line = threading.Thread(target=wait, name="patchmill-line")
            line.start()
            line.join()
            yield batch

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(LossMeter, "take", None)  # of a step that is logged
    stacks = StackDump(tmp_path)
    found = gpu_waits.count(state, stacks, feeds.Feed("waiting", batches()))
    stacks.close()
    ((line, count),) = found.items()
    assert line.startswith("tests/benchmarks/test_training_benchmark.py:")
    assert count == 2 * gpu_waits.STEPS  # a step is of two micro-batches here
    assert modes == ["warn", "default"]
    assert state.config.train.log_every < 100
    result = table.TrainingResult({}, 1, 1, 1, 1, 0.0, {}, [], found)
    assert result.as_json()["gpu_waits_per_step"] == 2
    assert "gpu_waits" not in replace(result, gpu_waits=None).as_json()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = SimpleNamespace(now=0.0)

    def later(seconds: float) -> None:
        fake.now += seconds

    fake.later = later
    monkeypatch.setattr(steps, "time", SimpleNamespace(perf_counter=lambda: fake.now))
    return fake


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["method=mocco"], "there is no method=mocco; did you mean 'moco'"),
        ([*OVERRIDES, "--peers", "torchvison"], "no peer 'torchvison'; did you mean 'torchvision'"),
        ([*OVERRIDES, "--steps", "0"], "--steps must be 1 or more, not 0"),
        ([*OVERRIDES, "--json", "nowhere/out.json"], "its folder must exist"),
    ],
)
def test_errors_are_one_sentence(monkeypatch, argv: list[str], sentence: str) -> None:
    with pytest.raises(MillError, match=re.escape(sentence)) as error:
        run(monkeypatch, *argv)
    assert "\n" not in str(error.value)


def test_a_missing_torchvision_is_reported(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "patchmill.benchmarks.peers.torchvision", None)
    sentence = "torchvision is not installed: pip install torchvision; to skip torchvision: "
    with pytest.raises(MillError, match=f"^{re.escape(sentence)}--peers ''$"):
        run(monkeypatch, *OVERRIDES)


def test_views_that_torchvision_cannot_make_are_refused() -> None:
    spread = Recipe((Views("tiles", 1, 16, Spread(2, 2)),))
    with pytest.raises(MillError, match="torchvision has no evenly spaced windows"):
        feeds.LabelledViews(open_source(SCENES), spread)


def _loader(
    views: str = "moco_v2(size=32)", count: int = 12, channels_last: bool = False
) -> Loader:
    data = f"scenes(count={count}, size=32)"
    return loaders.build(data, views, 4, workers=1, channels_last=channels_last)
