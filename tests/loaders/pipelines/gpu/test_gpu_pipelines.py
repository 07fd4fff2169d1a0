"""Pipelines on a GPU: samples, pixels and streams that the interpreter cannot test."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
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
from helpers_odd_images import odd
from helpers_pipelines import RECIPE

from patchmill.loaders.pipelines.spec import unavailable

pytestmark = pytest.mark.gpu

LEVEL = 1 / 255
LIES = {"taller than it is", "wider than it is", "shorter than it is", "truncated, with an end"}


# ------------------------------------------------------------------------------- samples and pixels


@pytest.mark.parametrize(
    ("dtype", "channels_last"), [(torch.float32, False), (torch.bfloat16, True)]
)
def test_samples_and_views_equal_those_of_the_cpu(
    pipeline: str, dtype: torch.dtype, channels_last: bool
) -> None:
    """DALI's pixels differ where chroma was subsampled: it repeats what others interpolate."""
    settings = {"dtype": dtype, "channels_last": channels_last, "drop_last": False}
    ours, theirs = (make(Photos(50), RECIPE, 8, **settings) for make in (on_gpu, on_cpu))
    mean, most = (1.0, 4.0) if pipeline == "threads" else (2.0, None)
    slack = 2.0 if dtype == torch.bfloat16 else 0.0  # levels, half of its last bit
    for _ in range(2):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.ids, other.ids)
            assert one.ids.device.type == "cpu"
            assert one.labels.device.type == "cuda"
            assert torch.equal(one.labels.cpu(), other.labels)
            assert (one.rows == other.rows).all()
            assert (one.shapes == other.shapes).all()
            for name, geometry in one.geometry.items():
                assert geometry.box.device.type == "cuda"
                assert torch.equal(geometry.box.cpu(), other.geometry[name].box)
            for target in one.targets:
                views, expected = one.views[target.name], other.views[target.name]
                assert views.device.type == "cuda"
                assert (views.dtype, views.stride()) == (dtype, expected.stride())
                error = (views.cpu().float() - expected.float()).abs()
                error *= torch.tensor(target.std)[:, None, None]
                assert error.mean() <= (mean + slack / 4) * LEVEL
                assert most is None or error.max() <= (most + slack) * LEVEL


def test_runs_are_bitwise_equal(pipeline: str) -> None:
    first, *others = (synchronised_batches(on_gpu(Photos(48), RECIPE, 6), 2) for _ in range(3))
    for other in others:
        assert_equal(first, other)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Everything odd that all decoders agree on, and bad files."""
    for i, (name, data) in enumerate(odd().items()):
        if name not in LIES:
            path = tmp_path / "odd" / f"class_{i % 3}" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return tmp_path / "odd"


def test_bad_files_are_replaced_as_on_the_cpu(pipeline: str, folder: Path, tmp_path: Path) -> None:
    ours, theirs = (
        make(folder, RECIPE, 6, ledger=tmp_path / make.__name__) for make in (on_gpu, on_cpu)
    )
    for _ in range(2):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.ids, other.ids)
            assert torch.equal(one.labels.cpu(), other.labels)
            assert (one.shapes == other.shapes).all()
    assert set(ours.ledger._bad) == set(theirs.ledger._bad)
    assert len(ours.ledger) >= 4


def test_false_headers_leave_batches_complete(pipeline: str) -> None:
    """Decoders may differ in whether they decode or replace them."""
    source = Photos(40)
    source.files[3:7] = [odd()[name] for name in LIES]
    loader = on_gpu(source, RECIPE, 8)
    for _ in range(2):
        for batch in loader:
            assert len(batch) == 8
            assert all(views.isfinite().all() for views in batch.views.values())


def test_every_stage_is_counted_when_an_epoch_is_over(pipeline: str) -> None:
    loader = on_gpu(Photos(48, plain=True), RECIPE, 6)
    for epoch in (1, 2):
        for _ in loader:
            pass
        stages = loader.stats().stages
        for stage in stages.values():
            assert stage.items == 48 * epoch
            assert stage.seconds > 0
        assert stages["render"].crew == stages["upload"].crew == "gpu"


def test_auto_takes_dali_where_it_is_installed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "patchmill"):
        loader = on_gpu(Photos(48), pipeline="auto", workers=1)
    expected = "threads" if unavailable("nvidia.dali") else "dali"
    assert loader.pipeline.name == expected
    assert any(line.startswith(f"pipeline {expected}, because ") for line in caplog.messages)
    assert sum(len(batch) for batch in loader) == 48


# ------------------------------------------------------------------------------------------ streams


def test_a_training_stream_far_behind_reads_the_right_batches(pipeline: str) -> None:
    """Each batch is read long after the program has dropped it."""
    expected = synchronised_batches(on_gpu(Photos(96), RECIPE, 4), 2)
    loader, seen = on_gpu(Photos(96), RECIPE, 4), []
    for _ in range(2):
        for batch in loader:
            torch.cuda._sleep(SLEEP)
            seen.append(copies(batch))
    assert_equal(seen, expected)


def test_batches_used_on_another_stream(pipeline: str) -> None:
    """The last batch of an epoch dies while another stream is current."""
    expected = synchronised_batches(on_gpu(Photos(32), RECIPE, 4), 4)
    loader, user, seen = on_gpu(Photos(32), RECIPE, 4), torch.cuda.Stream(), list[Any]()

    def epoch() -> None:
        with torch.cuda.stream(user):
            for batch in loader:
                torch.cuda._sleep(SLEEP)
                seen.append(copies(batch))

    for _ in range(4):
        epoch()
    torch.cuda.synchronize()
    assert_equal(seen, expected)


def test_closing_a_loader_whose_last_batches_are_still_read(pipeline: str) -> None:
    """Memory freed to torch is not overwritten by the next iteration either."""
    expected = synchronised_batches(on_gpu(Photos(16), RECIPE, 4), 4)
    loader, seen = on_gpu(Photos(16), RECIPE, 4), []
    for _ in range(4):
        for batch in loader:
            torch.cuda._sleep(SLEEP)
            seen.append(copies(batch))
        del batch
        loader.close()
    assert_equal(seen, expected)


def test_batches_outlive_their_loader(pipeline: str) -> None:
    expected = synchronised_batches(on_gpu(Photos(12), RECIPE, 4))
    seen = []
    for _ in range(3):
        loader = on_gpu(Photos(12), RECIPE, 4)
        seen.append([])
        for batch in loader:
            torch.cuda._sleep(SLEEP)
            seen[-1].append(copies(batch))
        del batch, loader
    for one in seen:
        assert_equal(one, expected)


def test_the_host_does_not_wait_for_a_busy_stream(pipeline: str) -> None:
    loader = on_gpu(Photos(64), RECIPE, 4, prefetch=2)
    kept = list(itertools.islice(loader, 3))  # with all that is allocated once
    iterator = iter(loader)
    torch.cuda.synchronize()
    torch.cuda._sleep(100 * SLEEP)
    busy = torch.cuda.Event()
    busy.record()
    kept += [next(iterator), next(iterator)]
    assert not busy.query(), "the host has waited for the current stream, or the GPU is very fast"
    iterator.close()


def test_kept_views_are_never_overwritten(pipeline: str) -> None:
    loader, kept = on_gpu(Photos(48), RECIPE, 4), []
    for _ in range(3):
        for step, batch in enumerate(loader):
            views = batch.views["local"][1:, 2] if step % 2 else batch.crops()[1]
            kept.append((views, views.clone()))
    assert all(torch.equal(views, copy) for views, copy in kept)


def test_another_device_than_the_current_one(pipeline: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    expected = synchronised_batches(on_gpu(Photos(24), RECIPE, 4))
    found = []
    for batch in on_gpu(Photos(24), RECIPE, 4, device="cuda:1"):
        assert batch.labels.device == torch.device("cuda:1")
        found.append({name: views.to("cuda:0") for name, views in batch.views.items()})
    assert_equal(found, expected)
