"""Memory of the pipelines on a GPU: bounded, reused only after its readers, and no leaks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers_gpu_pipelines import (
    SLEEP,
    Photos,
    on_gpu,
)
from helpers_odd_images import saved
from helpers_pipelines import GLANCE, RECIPE, mill_threads

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines.memory import DeviceBlockPool
from patchmill.loaders.recipe import Crop, Recipe, Views

pytestmark = pytest.mark.gpu


# ------------------------------------------------------------------------------- device block pool

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


# ---------------------------------------------------------------------------------------- pipelines


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
