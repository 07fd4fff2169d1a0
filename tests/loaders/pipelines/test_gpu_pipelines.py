"""Pipelines on a GPU: samples, pixels, streams and memory that the interpreter cannot test."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_odd_images import jpeg, odd, picture, saved
from helpers_pipelines import GLANCE, RECIPE, Pictures, make_loader, mill_threads

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines.memory import DeviceBlockPool
from patchmill.loaders.pipelines.spec import unavailable
from patchmill.loaders.recipe import Crop, Recipe, Views

pytestmark = pytest.mark.gpu

LEVEL = 1 / 255
SLEEP = 20_000_000  # cycles: some hundredths of a second
LIES = {"taller than it is", "wider than it is", "shorter than it is", "truncated, with an end"}
PIPELINES = ["threads", "dali(hardware=0)", "dali(hardware=1)"]


@pytest.fixture(params=PIPELINES)
def pipeline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Pipeline for `on_gpu`; the hardware share is given, so that none is measured."""
    if request.param != "threads" and unavailable("nvidia.dali"):
        pytest.skip("needs DALI")
    monkeypatch.setenv("TEST_PIPELINE", request.param)
    return request.param


def on_gpu(*arguments: Any, **settings: Any) -> Any:
    return make_loader(*arguments, **{"device": "cuda", **settings})


def on_cpu(*arguments: Any, **settings: Any) -> Any:
    return make_loader(*arguments, pipeline="threads", **settings)


class Photos(Pictures):
    """Smooth pictures of ragged sizes, most of them JPEGs; a few files stand for many samples."""

    def __init__(self, count: int, sizes: int = 24, plain: bool = False) -> None:
        super().__init__(count)
        self.files = []
        for n in range(sizes):
            height, width = 60 + 37 * n % 150, 50 + 53 * n % 170
            png = n % 5 == 4 and not plain
            made = saved(picture(n, height, width, 8), "PNG") if png else None
            self.files.append(made or jpeg(n, height, width, noise=8, quality=90))

    def read(self, index: int) -> bytes:
        return self.files[index % len(self.files)]


def copies(batch: Any) -> dict[str, torch.Tensor]:
    """Copy the views on the current stream, as training would read them."""
    return {name: views + 0 for name, views in batch.views.items()}


def assert_equal(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs)
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        for name in other:
            assert torch.equal(one[name], other[name]), f"{name} of batch {step}"


def synchronised_batches(loader: Any, epochs: int = 1) -> list[dict[str, torch.Tensor]]:
    """Copies of all batches, with the device synchronised before and after each copy."""
    found = []
    for _ in range(epochs):
        for batch in loader:
            torch.cuda.synchronize()
            found.append(copies(batch))
            torch.cuda.synchronize()
    return found


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


# ------------------------------------------------------------------------------------------- blocks

NUMBERS = 1 << 20


@pytest.fixture
def blocks() -> DeviceBlockPool:
    return DeviceBlockPool(
        NUMBERS, torch.float32, torch.device("cuda", torch.cuda.current_device())
    )


def lent(blocks: DeviceBlockPool, side: torch.cuda.Stream, value: int) -> torch.Tensor:
    """A block full of `value`, for the current stream."""
    with torch.cuda.stream(side):
        block = blocks.acquire().fill_(value)
        done = side.record_event()
    torch.cuda.current_stream().wait_event(done)
    return block


def test_a_block_is_reused_only_after_its_reader(blocks: DeviceBlockPool) -> None:
    side, seen = torch.cuda.Stream(), []
    places = set()
    for value in range(20):
        block = lent(blocks, side, value)
        places.add(block.data_ptr())
        torch.cuda._sleep(SLEEP)
        seen.append(block.min() + block.max())
        del block
    assert len(places) == 1
    assert [total.item() for total in seen] == [2 * value for value in range(20)]


def test_a_block_waits_for_the_stream_that_it_was_handed_to(blocks: DeviceBlockPool) -> None:
    side, user, seen = torch.cuda.Stream(), torch.cuda.Stream(), []
    for value in range(20):
        with torch.cuda.stream(user):
            block = lent(blocks, side, value)
            blocks.record_reader(block, user)
            torch.cuda._sleep(SLEEP)
            seen.append(block.min() + block.max())
        del block  # where the default stream is the current one, with nothing to do
    torch.cuda.synchronize()
    assert [total.item() for total in seen] == [2 * value for value in range(20)]


@pytest.mark.parametrize("how", ["cleared", "gone"])
def test_memory_freed_to_torch_waits_for_its_reader_too(blocks: DeviceBlockPool, how: str) -> None:
    side = torch.cuda.Stream()
    block = lent(blocks, side, 1)
    place = block.data_ptr()
    torch.cuda._sleep(10 * SLEEP)
    total = block.min() + block.max()
    del block
    if how == "cleared":
        blocks.clear()
    else:
        del blocks
    with torch.cuda.stream(side):
        others = [torch.full((NUMBERS,), 7.0, device="cuda") for _ in range(4)]
    assert total.item() == 2
    assert place  # torch may or may not have handed it out, but not too early
    del others


def test_any_view_of_a_block_keeps_it_lent(blocks: DeviceBlockPool) -> None:
    part = blocks.acquire()[:1000].view(10, 100)[3, 5:]
    assert len(blocks._free) == 0
    del part
    assert len(blocks._free) == 1


# ------------------------------------------------------------------------------- memory in the end


def checksum(batch: Any) -> torch.Tensor:
    """A checksum of all bits, independent of the order of addition."""
    groups = [batch.flat(name).view(torch.int32) for name in batch.views]
    return torch.stack([group.sum(dtype=torch.int64) for group in groups])


SPECK = Recipe((Views("a", 1, 12, Crop((0.4, 1.0))), Views("b", 2, 6)), name="speck")


@pytest.mark.slow
def test_ten_thousand_batches_with_all_free_memory_poisoned(
    pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Freed memory is overwritten at once, on the host, on the GPU and in DALI's pool."""
    batches = {1: 1000, 2: 4000, 3: 3000, 7: 2000}
    sources = {size: Photos(size * count) for size, count in batches.items()}
    expected = {size: sums(source, size, calm=True) for size, source in sources.items()}
    acquire = DeviceBlockPool.acquire
    monkeypatch.setattr(
        DeviceBlockPool,
        "acquire",
        lambda blocks: poisoned(acquire(blocks).view(torch.uint8), blocks),
    )
    with WhiteImages(pipeline):
        for size, source in sources.items():
            assert torch.equal(sums(source, size, calm=False), expected[size])


def poisoned(memory: torch.Tensor, blocks: DeviceBlockPool) -> torch.Tensor:
    return memory.fill_(0xFF).view(blocks._dtype)


def sums(source: Photos, batch_size: int, calm: bool) -> torch.Tensor:
    """The checksums of an epoch's batches, waiting for each of them or never."""
    loader, found = on_gpu(source, SPECK, batch_size, workers=4), []
    if not calm:
        views = getattr(loader.pipeline, "_views", None) or loader.pipeline._backend._views
        views._arena_pool._free = PoisoningFreeList()
    rng = np.random.default_rng(0)
    for batch in loader:
        if calm:
            torch.cuda.synchronize()
        elif rng.random() < 0.05:
            torch.cuda._sleep(SLEEP // 10)
        found.append(checksum(batch))
        if calm:
            torch.cuda.synchronize()
    return torch.stack(found).cpu()


class PoisoningFreeList:
    """A free list of host blocks that overwrites them as they return."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []

    def append(self, block: np.ndarray) -> None:
        block[:] = 0xFF
        self._blocks.append(block)

    def pop(self) -> np.ndarray:
        return self._blocks.pop()

    def clear(self) -> None:
        self._blocks.clear()


class WhiteImages:
    """Run another decoder meanwhile, which fills DALI's freed memory with white images."""

    def __init__(self, pipeline: str) -> None:
        self._wanted, self._over = pipeline != "threads", threading.Event()
        self._thread = threading.Thread(target=self._decode)
        self._problems: list[BaseException] = []

    def __enter__(self) -> None:
        if self._wanted:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._wanted:
            self._thread.join()
        assert not self._problems

    def _decode(self) -> None:
        from PIL import Image

        from patchmill.loaders.pipelines.dali.decoder import BatchDecoder

        rng = np.random.default_rng(1)
        try:
            decoder = BatchDecoder(
                16, device=torch.device("cuda"), threads=1, ahead=1, hardware=0.0
            )
            while not self._over.is_set():
                sizes = rng.integers(40, 220, (rng.integers(1, 17), 2))
                white = [Image.new("RGB", (int(w), int(h)), "white") for h, w in sizes]
                decoder.submit([np.frombuffer(saved(one, "JPEG"), np.uint8) for one in white])
                decoder.take()
        except BaseException as error:
            self._problems.append(error)


@pytest.mark.slow
def test_memory_does_not_grow(pipeline: str) -> None:
    """Neither torch's nor the whole process's, DALI's included, over 1000 batches."""
    source = Photos(8 * 125, sizes=1, plain=True)  # so that every batch needs the same
    loader, taken = on_gpu(source, RECIPE, 8), []
    for epoch in range(9):
        for batch in loader:
            torch.cuda._sleep(SLEEP // 20)
            checksum(batch)
        torch.cuda.synchronize()
        if epoch in (0, 8):
            free, total = torch.cuda.mem_get_info()
            taken.append((torch.cuda.memory_reserved(), total - free))
    (reserved, used), (reserved_later, used_later) = taken
    assert reserved_later <= reserved
    assert used_later <= used + (16 << 20)  # of a driver that keeps books of its own


def test_there_are_no_more_blocks_than_batches_alive(
    pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, acquire = set(), DeviceBlockPool.acquire

    def watched(blocks: DeviceBlockPool) -> torch.Tensor:
        block = acquire(blocks)
        places.add(block.data_ptr())
        return block

    monkeypatch.setattr(DeviceBlockPool, "acquire", watched)
    loader = on_gpu(Photos(200), RECIPE, 4, prefetch=2)
    for _ in range(2):
        for batch in loader:
            torch.cuda._sleep(SLEEP // 4)  # far behind
            checksum(batch)
    assert len(places) <= (2 + 1) + 1 + 1  # made ahead, in hand, and one that a thread drops late


@pytest.fixture
def little_memory() -> Iterator[None]:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (64 << 20)) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("little_memory")
def test_out_of_gpu_memory_is_a_mill_error(pipeline: str) -> None:
    huge = Recipe((Views("view", 1, 512),), name="huge")
    with pytest.raises(MillError, match=r"no memory for another batch of 0\.2 GiB: take"):
        next(iter(on_gpu(Photos(64), huge, 64)))
    assert not mill_threads()


def test_a_failure_on_the_gpu_is_raised_and_threads_end(
    pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from patchmill.kernels.views.gpu import render

    loader, original, calls = on_gpu(Photos(48), GLANCE), render.render_into, []

    def fail(*arguments: Any) -> None:
        calls.append(1)
        original(*arguments)
        if len(calls) == 3:
            raise RuntimeError("CUDA error: of some kind")

    monkeypatch.setattr(render, "render_into", fail)
    with pytest.raises(RuntimeError, match="of some kind"):
        for _ in loader:
            pass
    assert not mill_threads()
    assert sum(len(batch) for batch in loader) == 48
