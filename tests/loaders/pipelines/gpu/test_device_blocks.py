"""Blocks of batch memory on the GPU and the stream they are rendered on, on a model of a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers_streams import Gpu, Stream

from patchmill.loaders.pipelines import memory
from patchmill.loaders.pipelines.gpu import side_stream
from patchmill.loaders.pipelines.gpu.side_stream import MOST_QUEUED, SideStream
from patchmill.loaders.pipelines.memory import DeviceBlockPool
from patchmill.loaders.stats import Counters

CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """A GPU whose work is never seen to be done unless somebody waits for it."""
    gpu = Gpu(0)
    gpu.luck = 0.0
    for module in (memory, side_stream):
        monkeypatch.setattr(module, "torch", gpu.torch)
    yield gpu
    assert not gpu.races


def returned(gpu: Gpu, blocks: DeviceBlockPool, readers: list[Stream]) -> list[int]:
    """Addresses of blocks that have returned in this order, each read by one of these streams."""
    lent = [blocks.acquire() for _ in readers]
    places = [block.data_ptr() for block in lent]
    for reader in readers:
        with gpu.on(reader):
            gpu.kernel([], [lent[0].data_ptr()])
            del lent[0]
    return places


def test_the_block_that_was_returned_first_is_lent_first(gpu: Gpu) -> None:
    """The work queued on it ends first: the training step that reads the newest has just begun."""
    blocks = DeviceBlockPool(8, torch.float32, CUDA)
    places = returned(gpu, blocks, [Stream(gpu)] * 3)
    assert [blocks.acquire().data_ptr() for _ in range(3)] == places


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_block_that_nothing_reads_any_more_is_lent_before_others(gpu: Gpu, done: int) -> None:
    blocks, streams = DeviceBlockPool(8, torch.float32, CUDA), [Stream(gpu) for _ in range(3)]
    places = returned(gpu, blocks, streams)
    streams[done].synchronize()
    first, *others = [blocks.acquire() for _ in range(3)]
    assert first.data_ptr() == places.pop(done)
    assert [block.data_ptr() for block in others] == places
    assert gpu.allocated == 3


def test_the_side_stream_goes_before_the_training_s(gpu: Gpu) -> None:
    side: Any = SideStream(CUDA, Counters(("render",)))
    assert side.stream.priority < gpu.default.priority


def test_memory_of_two_batches_is_kept_and_no_more(gpu: Gpu) -> None:
    """However many batches are queued, and though their users keep what `queue` gave them."""
    side, kept, alive = SideStream(CUDA, Counters(("render",))), [], set[int]()
    for number in range(6):
        with side.queue(1) as work:
            work.keep_alive(Owner(number, alive))
            gpu.kernel([], [gpu.new("a batch")])
            work.end_stage("render")
        kept.append(work)
        assert alive == set(range(max(number + 1 - MOST_QUEUED, 0), number + 1))
    side.wait_for_room()
    assert alive == {5}
    side.synchronize()
    assert not alive


class Owner:
    """Memory of decoded images, by whose numbers one knows what is alive."""

    def __init__(self, number: int, alive: set[int]) -> None:
        self._number, self._alive = number, alive
        alive.add(number)

    def __del__(self) -> None:
        self._alive.discard(self._number)
