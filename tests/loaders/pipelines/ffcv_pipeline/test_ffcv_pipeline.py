"""Pipeline `ffcv` gives the batches of pipeline `threads`."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import helpers_ffcv  # noqa: F401  # skips without FFCV
import pytest
import torch
from helpers_beton import encode, overwrite_image, write_beton

from patchmill import loaders
from patchmill.loaders import operations
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.build import default_workers
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines.tuning import controller, iteration
from patchmill.loaders.recipe import Blur, Colour, Crop, Recipe, Views

COUNT = 22
RECIPE = Recipe(
    (
        Views("global", 2, 16, Crop((0.4, 1.0)), colour=Colour(0.4, 0.4, 0.2, 0.1), blur=Blur(0.5)),
        Views("local", 3, 9, Crop((0.05, 0.4)), turns=True),
    ),
    name="small",
)
IMAGES = [encode(i) if i % 5 else encode(i, "PNG") for i in range(COUNT)]  # those become raw


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_beton(tmp_path / "some.beton", IMAGES)


def build(
    path: Path,
    batch_size: int = 4,
    pipeline: str = "ffcv",
    recipe: Recipe = RECIPE,
    **settings: Any,
) -> Any:
    settings = {"seed": 3, "workers": 2, "drop_last": False} | settings
    return loaders.build(path, recipe, batch_size, pipeline=pipeline, **settings)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A loader, which takes seconds to compile, of a file that nobody damages."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATCHMILL_CACHE", str(folder / "cache"))
        loader = build(write_beton(folder / "some.beton", IMAGES))
        return loader, loader.state_dict()


@pytest.fixture
def ffcv(compiled: Any) -> Any:
    """The loader of `compiled`, from its start."""
    loader, start = compiled
    loader.load_state_dict(start)
    return loader


def assert_same(a: ViewBatch, b: ViewBatch) -> None:
    assert a.ids.tolist() == b.ids.tolist()
    assert a.labels is not None and b.labels is not None
    assert a.labels.tolist() == b.labels.tolist()
    assert (a.rows == b.rows).all() and (a.shapes == b.shapes).all()
    for name, views in a.views.items():
        assert torch.equal(views, b.views[name])


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16]
)
def test_operations_and_mixing_equal_those_of_threads(path: Path, dtype: torch.dtype) -> None:
    recipe = operations.add(RECIPE, operations.GaussianNoise(), operations.RandomErasing())
    settings = {"recipe": recipe, "dtype": dtype, "mix": operations.Mix(classes=1000)}
    ffcv, threads = build(path, **settings), build(path, pipeline="threads", **settings)
    for _ in range(2):
        for one, other in zip(list(ffcv), threads, strict=True):
            assert_same(one, other)
    assert ffcv.stats().stages["extra"].items == 2 * COUNT


def test_batches_equal_those_of_threads(path: Path, ffcv: Any) -> None:
    assert_equal_epochs(ffcv, build(path, pipeline="threads"))


def test_one_worker_makes_the_same_and_torch_keeps_its_threads(path: Path) -> None:
    torch.set_num_threads(2)
    assert_equal_epochs(build(path, workers=1), build(path, pipeline="threads"))
    assert torch.get_num_threads() == 2


def assert_equal_epochs(ffcv: Any, threads: Any) -> None:
    for _ in range(2):
        batches = list(ffcv)
        assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 2]
        for mine, theirs in zip(batches, threads, strict=True):
            assert_same(mine, theirs)


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, pytest.param(torch.bfloat16, marks=pytest.mark.slow), torch.float16],
)
def test_dtypes_and_the_limit_of_pixels(path: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    """An image of more pixels is a bad sample, whether it is a JPEG or raw."""
    settings = {"dtype": dtype, "channels_last": True, "max_pixels": 1500}
    names = ("ffcv", "threads")
    made = [build(path, pipeline=name, ledger=tmp_path / name, **settings) for name in names]
    for mine, theirs in zip(*made, strict=True):
        assert mine.views["local"].dtype == dtype
        assert_same(mine, theirs)
    bad, wanted = (
        {entry["id"]: entry["reason"] for entry in map(json.loads, (tmp_path / name).open())}
        for name in names
    )
    assert bad == wanted and {id % 5 == 0 for id in bad} == {True, False}


def test_resumes_from_the_state_of_another_pipeline_and_world_size(path: Path, ffcv: Any) -> None:
    whole = list(ffcv)
    half = build(path, batch_size=2, pipeline="threads", rank=1, world_size=2)
    batches = iter(half)
    for _ in range(3):
        next(batches)
    state = half.state_dict()
    batches.close()
    ffcv.load_state_dict(state)
    rest = list(ffcv)
    assert len(rest) == 3
    for mine, wanted in zip(rest, whole[3:], strict=True):
        assert_same(mine, wanted)


def test_ranks_share_the_epoch(path: Path) -> None:
    ids = [
        [
            id
            for batch in build(path, pipeline=pipeline, rank=rank, world_size=2)
            for id in batch.ids.tolist()
        ]
        for rank, pipeline in enumerate(("threads", "ffcv"))
    ]
    assert sorted(ids[0] + ids[1]) == list(range(COUNT))


def test_kept_batches_are_never_overwritten(ffcv: Any) -> None:
    first, *_ = batches = list(ffcv)
    copies = {name: views.clone() for name, views in first.views.items()}
    list(ffcv)
    assert len(batches) == 6
    assert all(torch.equal(views, copies[name]) for name, views in first.views.items())


def test_bad_samples_equal_those_of_threads_and_too_many_end_the_run(
    path: Path, tmp_path: Path
) -> None:
    for id in (1, 7, 13):
        overwrite_image(path, id, IMAGES[id][: len(IMAGES[id]) // 2])
    overwrite_image(path, 4, b"no picture")
    ledgers = {name: tmp_path / f"{name}.jsonl" for name in ("ffcv", "threads")}
    ffcv, threads = (build(path, pipeline=name, ledger=ledgers[name]) for name in ledgers)
    for _ in range(2):
        for mine, theirs in zip(ffcv, threads, strict=True):
            assert_same(mine, theirs)
    listed = [sorted(map(json.dumps, entries(ledger))) for ledger in ledgers.values()]
    assert len(listed[0]) == 4 and listed[0] == listed[1]
    for id in range(COUNT):
        overwrite_image(path, id, b"no picture")
    with pytest.raises(MillError, match="more than the 10 that are tolerated"):
        list(ffcv)
    assert mill_threads() == []


def test_a_file_that_is_truncated_meanwhile_is_an_error(path: Path) -> None:
    """FFCV maps the file: reading beyond its end would end the process with a bus error."""
    batches = iter(build(path, prefetch=1))
    next(batches)
    os.truncate(path, 20_000)
    with pytest.raises(MillError, match="was truncated while it was in use"):
        list(batches)


def entries(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger.read_text().splitlines()]


def test_no_thread_is_left_after_an_early_end(ffcv: Any) -> None:
    before = threading.active_count()
    for _ in range(3):
        for _ in ffcv:
            break
        assert mill_threads() == [] and threading.active_count() == before
    assert ffcv.epoch == 2


def mill_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("patchmill")]


def test_stats_count_every_sample(ffcv: Any) -> None:
    before = {name: stage.items for name, stage in ffcv.stats().stages.items()}
    list(ffcv)
    stages = ffcv.stats().stages
    assert {name: stage.items - before[name] for name, stage in stages.items()} == {
        "decode": COUNT,
        "plan": COUNT,
        "render": COUNT,
    }
    assert all(stage.seconds > 0 and stage.lanes == 2 for stage in stages.values())


def test_only_the_batches_ahead_are_tuned(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of the compiled code are fixed."""
    for name in ("SETTLING_S", "WINDOW_S", "LONGEST_S"):
        monkeypatch.setattr(iteration, name, 0.0)
    seen: list[controller.Window] = []

    def decide(windows: Any, start: Any, limits: controller.Limits) -> controller.Decision:
        seen.append(windows[-1])
        return controller.Decision(limits.clip(9, 1 + len(seen) % 4))

    monkeypatch.setattr(controller, "decide", decide)
    tuned, fixed = (
        build(path, 2, workers="auto", prefetch="auto"),
        build(path, 2, pipeline="threads"),
    )
    for _ in range(2):
        for ours, theirs in zip(tuned, fixed, strict=True):
            assert_same(ours, theirs)
    assert len(seen) > 2 and {window.setting.workers for window in seen} == {1}
    assert tuned.stats().workers == default_workers()


def test_other_sources_than_betons_are_refused(path: Path) -> None:
    with pytest.raises(MillError, match=r"'ffcv' reads \.beton files"):
        loaders.build("scenes:8", RECIPE, 4, pipeline="ffcv")
