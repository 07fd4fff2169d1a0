"""The pipelines of a GPU, run on a CPU: Triton's interpreter runs their kernels.

    TRITON_INTERPRET=1 python -m pytest tests/loaders/pipelines/gpu/pipelines_interpreted.py

Everything but streams and events is as on a GPU: packing, addresses, labels, errors, memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_gpu_pipelines_interpreted import (
    DOT,
    LEVEL,
    MOST,
    TINY,
    assert_rendered,
    views_of,
)
from helpers_odd_images import jpeg, picture, saved, write_odd
from helpers_pipelines import Masked, Pictures, make_loader, mill_threads

from patchmill.kernels.views.gpu import render
from patchmill.loaders import operations
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.pipelines import memory
from patchmill.loaders.pipelines.gpu import arena
from patchmill.loaders.pipelines.gpu import views as gpu_views
from patchmill.loaders.pipelines.tuning import controller, iteration
from patchmill.loaders.pipelines.tuning.controller import Setting
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import CopyPaste, Recipe


def each_by_one(name: str, first: str, second: str) -> pytest.MarkDecorator:
    """A value for each pipeline; slow tests are the other pairs."""
    usual = [("threads", first), ("dali", second)]
    others = [("threads", second), ("dali", first)]
    pairs = [*usual, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in others)]
    return pytest.mark.parametrize(("on_gpu", name), pairs, indirect=["on_gpu"])


# ------------------------------------------------------------------------------- samples and pixels


def test_samples_equal_those_of_the_cpu_and_views_those_of_the_renderer(
    on_gpu: Callable[..., Any],
) -> None:
    source, settings = Pictures(5), {"batch_size": 3, "drop_last": False}
    ours = on_gpu(source, TINY, **settings)
    theirs = make_loader(source, TINY, **settings)
    expected = list(theirs)
    for one, other in zip(ours, expected, strict=True):
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.labels, other.labels)
        assert (one.rows == other.rows).all()
        assert (one.shapes == other.shapes).all()
        for name, geometry in one.geometry.items():
            assert torch.equal(geometry.box, other.geometry[name].box)
        images = [decode(source.read(id)) for id in one.ids.tolist()]
        assert_rendered(one, images, draw.targets(TINY))


@each_by_one("size", "1MB", "2KB")
def test_images_of_a_decoded_cache_are_uploaded_as_those_just_decoded(
    on_gpu: Callable[..., Any], size: str, tmp_path: Path
) -> None:
    cached = on_gpu(8, DOT, 4, cache=f"disk:{tmp_path}/store:{size}")
    plain = on_gpu(8, DOT, 4)
    for _ in range(2):
        expected = list(plain)  # the interpreter runs one loader at a time
        for one, other in zip(cached, expected, strict=True):
            assert torch.equal(one.ids, other.ids)
            assert torch.equal(one.views["dot"], other.views["dot"])
    figures = cached.stats().cache
    assert figures.hits == figures.images and (figures.images == 8) == (size == "1MB")


@each_by_one("background", "images", "grey")
def test_pasted_views_equal_those_of_the_cpu(on_gpu: Callable[..., Any], background: str) -> None:
    paste = CopyPaste(p=0.8, background=background, blur_sigma=2.0)
    views = Recipe((replace(TINY.views[0], count=2, blur=None, paste=paste),), name="pasting")
    source = Masked(8)
    ours = on_gpu(source, views, batch_size=4)
    theirs = make_loader(source, views, batch_size=4)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.rows == other.rows).all()
        error = (one.views["global"] - other.views["global"]).abs()
        assert error.max() <= 2 * MOST * LEVEL / min(views.views[0].std)
    assert ours.stats().unmasked == theirs.stats().unmasked > 0
    assert ours.stats().stages["mask"].items == theirs.stats().stages["mask"].items > 4


def test_batches_beyond_the_budget_are_made_in_sub_batches(
    on_gpu: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views, labels and operations are those of a batch made at once, also of pasted views."""
    from patchmill.loaders.pipelines import config

    paste = CopyPaste(p=1, background="images")
    view = replace(DOT.views[0], paste=paste, extra=(operations.RandomErasing(mode="rand"),))
    made = []

    def render_sub_batch(views: Any, job: Any, slots: Any, *others: Any) -> None:
        made.append(len(slots))
        original(views, job, slots, *others)

    original = gpu_views.GpuViews.render_sub_batch
    monkeypatch.setattr(gpu_views.GpuViews, "render_sub_batch", render_sub_batch)
    settings = {"batch_size": 4, "mix": operations.Mix(classes=3)}
    (expected,) = on_gpu(Masked(4), Recipe((view,), name="pasting"), **settings)
    assert not made
    monkeypatch.setattr(config, "MEAN_PIXELS", 100)
    monkeypatch.setattr(config, "LARGEST_IMAGES", 0)
    (found,) = on_gpu(Masked(4), Recipe((view,), name="pasting"), **settings)
    assert sum(made) == 4 and len(made) > 1
    assert torch.equal(found.ids, expected.ids) and torch.equal(found.labels, expected.labels)
    assert (found.rows == expected.rows).all() and (found.shapes == expected.shapes).all()
    assert torch.equal(found.views["dot"], expected.views["dot"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8])
def test_types_and_channels_last(on_gpu: Callable[..., Any], dtype: torch.dtype) -> None:
    exact = next(iter(on_gpu(3, DOT, 3)))
    batch = next(iter(on_gpu(3, DOT, 3, dtype=dtype, channels_last=True)))
    assert torch.equal(batch.ids, exact.ids)
    for target in draw.targets(DOT):
        found, views = batch.views[target.name], exact.views[target.name]
        assert found.dtype == dtype
        assert found[:, 0].is_contiguous(memory_format=torch.channels_last)
        if dtype == torch.uint8:
            mean, std = (torch.tensor(of)[:, None, None] for of in (target.mean, target.std))
            views = 255 * (views * std + mean)
            assert (found - views).abs().max() <= 0.51
        else:
            torch.testing.assert_close(found, views.to(dtype))


@each_by_one("mode", "batch", "element")
def test_operations_and_mixing_equal_those_of_the_cpu(
    on_gpu: Callable[..., Any], mode: Any
) -> None:
    extra = (operations.Rotation(), operations.RandomErasing(mode="rand"))
    recipe = Recipe((replace(DOT.views[0], count=3, size=4, extra=extra),), name="changed")
    mix = operations.Mix(classes=3, mode=mode)
    ours, theirs = (make(6, recipe, 3, mix=mix) for make in (on_gpu, make_loader))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert (one.views["dot"] - other.views["dot"]).abs().max() <= 2 * MOST * LEVEL / 0.22
    assert ours.stats().stages["extra"].items == 6
    assert ours.stats().stages["extra"].crew == "gpu"


def test_epochs_resumes_and_early_ends(on_gpu: Callable[..., Any]) -> None:
    ours, theirs = on_gpu(8, DOT, 2, seed=3), make_loader(8, DOT, 2, seed=3)
    ids = [[batch.ids.tolist() for batch in theirs] for _ in range(3)]
    for step, batch in enumerate(ours):
        assert batch.ids.tolist() == ids[0][step]
        if step == 2:
            break
    assert not mill_threads()
    assert [batch.ids.tolist() for batch in ours] == ids[1]
    for _ in ours:
        state = ours.state_dict()
        break
    again = on_gpu(8, DOT, 2, seed=3, workers=1, prefetch=1)
    again.load_state_dict(state)
    assert [batch.ids.tolist() for batch in again] == ids[2][1:]


def test_without_labels_there_are_none(on_gpu: Callable[..., Any]) -> None:
    source = Pictures(4)
    source.labels = None
    assert next(iter(on_gpu(source, DOT))).labels is None


# ------------------------------------------------------------------------------------------- faults


def test_odd_files(on_gpu: Callable[..., Any], tmp_path: Path) -> None:
    folder = write_odd(tmp_path / "odd")
    ours, theirs = on_gpu(folder, DOT, 7), make_loader(folder, DOT, 7, ledger=tmp_path / "cpu")
    expected = [[batch.ids, batch.labels] for batch in theirs]
    for batch, (ids, labels) in zip(ours, expected, strict=True):
        assert torch.equal(batch.ids, ids)
        assert torch.equal(batch.labels, labels)
        images = [decode(ours.source.read(id)) for id in batch.ids.tolist()]
        assert_rendered(batch, images, draw.targets(DOT))
    assert set(ours.ledger._bad) == set(theirs.ledger._bad)


def test_too_many_bad_files_end_the_run(on_gpu: Callable[..., Any]) -> None:
    def fail(index: int) -> None:
        if index % 2:
            raise OSError("no luck")

    with pytest.raises(MillError, match="more than the 10 that are tolerated"):
        for _ in on_gpu(Pictures(40, fail), DOT):
            pass
    assert not mill_threads()


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (RuntimeError("CUDA error: the GPU has fallen off the bus"), RuntimeError, "off the bus"),
        (torch.cuda.OutOfMemoryError("tried to allocate"), MillError, "there is no memory for ano"),
    ],
)
@pytest.mark.parametrize("call", [1, 2])
def test_a_failure_of_the_gpu_is_raised(
    on_gpu: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected: type[Exception],
    said: str,
    call: int,
) -> None:
    calls, original = [], render.render_into

    def fail(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == call:
            raise error
        original(*arguments)

    monkeypatch.setattr(render, "render_into", fail)
    loader = on_gpu(6, DOT, 2)
    seen = 0
    with pytest.raises(expected, match=said):
        for _ in loader:
            seen += 1
    assert seen == call - 1
    assert not mill_threads()
    assert sum(len(batch) for batch in loader) == 6


# ------------------------------------------------------------------------------------------- memory


def test_images_larger_than_a_block_of_the_arena(
    on_gpu: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (arena, gpu_views):
        monkeypatch.setattr(module, "BLOCK_BYTES", 4096)
    sizes = [(60, 70), (10, 20), (30, 40), (100, 90), (36, 37), (8, 8)]
    source: Any = Pictures(6)
    source.read = lambda index: saved(picture(index, *sizes[index]), "PNG")
    (batch,) = on_gpu(source, DOT, 6)
    images = [decode(source.read(id)) for id in batch.ids.tolist()]
    assert_rendered(batch, images, draw.targets(DOT))


def test_memory_is_reused_and_bounded(on_gpu: Callable[..., Any]) -> None:
    """Arenas and batches, over two epochs and one that is left early."""
    loader = on_gpu(12, DOT, 1, prefetch=2)
    views, made = views_of(loader), {"arena": 0, "batch": 0}

    def counted(blocks: memory.BlockPool, kind: str) -> None:
        original = blocks.allocate

        def allocate(size: int) -> np.ndarray:
            made[kind] += 1
            return original(size)

        blocks.allocate = allocate  # type: ignore[method-assign]

    counted(views._arena_pool, "arena")
    counted(views._batch_pool, "batch")
    for steps in (12, 3, 12):
        for step, _ in enumerate(loader, 1):
            if step == steps:
                break
    assert made["arena"] <= 2 + 2 + 2 * (loader.pipeline.name == "dali")  # two more are gathered
    assert made["batch"] <= 2 + 2 + 2
    assert len(views._arena_pool._free) == made["arena"]
    assert len(views._batch_pool._free) >= made["batch"] - 1  # the loop's last batch is alive
    loader.close()
    assert len(views._arena_pool._free) == len(views._batch_pool._free) == 0


def test_kept_views_are_never_overwritten(on_gpu: Callable[..., Any]) -> None:
    loader, kept = on_gpu(8, DOT, 1), []
    for _ in range(2):
        for batch in loader:
            kept.append((batch.views["dot"], batch.views["dot"].clone()))
    assert all(torch.equal(views, copy) for views, copy in kept)


def test_stats_have_the_stages(on_gpu: Callable[..., Any]) -> None:
    loader = on_gpu(6, DOT, 3)
    for _ in range(2):
        for _ in loader:
            pass
    stages = loader.stats().stages
    by_dali = loader.pipeline.name == "dali"
    assert set(stages) == {"read", "plan", "decode", "upload", "render"} | (
        {"inspect"} if by_dali else set()
    )
    for name, stage in stages.items():
        assert stage.items == (4 if by_dali and name == "decode" else 12)
        assert stage.seconds > 0
    assert (stages["render"].lanes, stages["render"].crew) == (1, "gpu")


def test_tuned_loaders_give_the_same(
    on_gpu: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SETTLING_S", "WINDOW_S", "LONGEST_S"):
        monkeypatch.setattr(iteration, name, 0.0)
    plan = itertools.cycle([Setting(3, 4), Setting(1, 1), Setting(2, 2)])
    monkeypatch.setattr(controller, "decide", lambda *_: controller.Decision(next(plan)))
    fixed = list(on_gpu(12, DOT, 2))  # before the other: the interpreter is for one thread
    tuned = on_gpu(12, DOT, 2, workers="auto", prefetch="auto")
    for ours, theirs in zip(tuned, fixed, strict=True):
        assert torch.equal(ours.ids, theirs.ids)
        assert torch.equal(ours.views["dot"], theirs.views["dot"])
    assert tuned.pipeline._tuning.windows


def test_warm_up_reads_nothing_from_the_source(on_gpu: Callable[..., Any]) -> None:
    """Labels of a stream are unknown before it is read."""

    def unread(*_: Any) -> None:
        raise AssertionError

    loader = on_gpu(Pictures(5), DOT, 5)
    loader.source.read = loader.source.labels_of = unread
    views = views_of(loader)
    views._warm_up()
    assert views.counters.items == {"upload": 5, "render": 5}


def test_a_jpeg_that_dali_refuses_is_replaced(on_gpu: Callable[..., Any]) -> None:
    source: Any = Pictures(9)
    files = [jpeg(n, 20 + n, 30) for n in range(9)]
    files[4] = files[4][:620] + b"\xff\xd9"
    source.read = lambda index: files[index]
    ours, theirs = on_gpu(source, DOT, 3), make_loader(source, DOT, 3)
    ids = [batch.ids.tolist() for batch in theirs]
    for batch, expected in zip(ours, ids, strict=True):
        assert batch.ids.tolist() == expected
        images = [decode(files[id]) for id in expected]
        assert_rendered(batch, images, draw.targets(DOT))
    assert set(ours.ledger._bad) == {4}
