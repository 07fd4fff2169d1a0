"""Arenas, block pools and the side stream: no overlap, aligned, returned when unused."""

from __future__ import annotations

import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers_odd_images import jpeg, odd, picture, saved, with_size
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.pipelines.gpu import arena as arenas
from patchmill.loaders.pipelines.gpu.arena import Allocation, Arena, decode_into
from patchmill.loaders.pipelines.gpu.side_stream import SideStream
from patchmill.loaders.pipelines.memory import BlockPool
from patchmill.loaders.stats import Counters

BLOCK = 4096  # in these tests


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas, "BLOCK_BYTES", BLOCK)


def new(count: int = 1) -> list[Arena]:
    pool = BlockPool(BLOCK, torch.uint8)
    return [Arena(pool) for _ in range(count)]


# ------------------------------------------------------------------------------------------- arenas


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 2 * BLOCK), min_size=1, max_size=40), st.integers(1, 4))
def test_allocations_from_many_threads_do_not_overlap(sizes: list[int], threads: int) -> None:
    (arena,) = new()

    def write(numbered: tuple[int, int]) -> Allocation:
        number, size = numbered
        place = arena.allocate(size)
        place.memory[:] = number
        return place

    with ThreadPoolExecutor(threads) as pool:
        places = list(pool.map(write, enumerate(sizes)))
    taken: dict[int, list[tuple[int, int]]] = {}
    for number, (size, place) in enumerate(zip(sizes, places, strict=True)):
        assert place.memory.size == size
        assert (place.memory == number).all()
        assert place.offset % 16 == 0
        there = arena.memory[place.block].numpy()[place.offset : place.offset + size]
        assert np.shares_memory(there, place.memory)
        taken.setdefault(place.block, []).append((place.offset, place.offset + size))
    for block, spans in taken.items():
        spans.sort()
        assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(spans))
        assert spans[-1][1] <= arena.used[block] <= spans[-1][1] + 15
        assert spans[-1][1] <= len(arena.memory[block])
    assert len(arena.memory) == len(taken)


def test_an_image_larger_than_a_block_gets_its_own_and_the_current_block_stays_open() -> None:
    (arena,) = new()
    first, large, second = (arena.allocate(size) for size in (100, 3 * BLOCK, 200))
    assert (first.block, large.block, second.block) == (0, 1, 0)
    assert [len(memory) for memory in arena.memory] == [BLOCK, 3 * BLOCK]
    assert arena.allocate(BLOCK).block == 2


def test_blocks_return_with_the_arena_and_oversized_ones_do_not() -> None:
    pool = BlockPool(BLOCK, torch.uint8)
    arena = Arena(pool)
    for size in (BLOCK, BLOCK, 2 * BLOCK):
        arena.allocate(size)
    assert len(pool._free) == 0
    del arena
    assert [block.size for block in pool._free] == [BLOCK, BLOCK]
    kept = Arena(pool).allocate(10).memory  # as an image does
    assert len(pool._free) == 1
    del kept
    assert len(pool._free) == 2


@pytest.mark.parametrize("name", odd())
def test_images_in_an_arena_equal_those_of_the_decoder(name: str) -> None:
    (arena,), data = new(), odd()[name]
    before = arena.allocate(33)
    before.memory[:] = 7
    try:
        expected = decode(data)
    except BadImage as error:
        with pytest.raises(BadImage) as ours:
            decode_into(arena, data)
        assert str(ours.value) == str(error)
        return
    height, width, place = decode_into(arena, data)
    after = arena.allocate(33)
    after.memory[:] = 9
    assert (arena.image(place[:2], height, width) == expected).all()
    assert (before.memory == 7).all()


def test_images_of_all_sizes_do_not_overlap() -> None:
    (arena,) = new()
    sizes = [(1, 1), (30, 40), (50, 60), (20, 10), (36, 37), (100, 3)]
    files = [jpeg(seed, *size) for seed, size in enumerate(sizes)]
    files += [saved(picture(seed, *size), "PNG") for seed, size in enumerate(sizes)]
    places = [decode_into(arena, data) for data in files]
    for data, (height, width, place) in zip(files, places, strict=True):
        assert (arena.image(place[:2], height, width) == decode(data)).all()


def test_a_false_header_allocates_at_most_a_block() -> None:
    """Allocated memory is uploaded, used or not."""
    (arena,) = new()
    for _ in range(3):
        with pytest.raises(BadImage):
            decode_into(arena, with_size(jpeg(), 5000, 5000)[:-60])
    assert sum(map(len, arena.memory)) <= BLOCK


# ------------------------------------------------------------------------------------------- blocks


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.uint8]),
    st.integers(1, 300),
    st.lists(st.booleans(), max_size=30),
)
def test_blocks_are_lent_to_one_at_a_time(
    dtype: torch.dtype, elements: int, steps: list[bool]
) -> None:
    """In any order of acquiring and dropping, live blocks keep their values, memory is reused."""
    pool, alive, addresses = BlockPool(elements, dtype), [], set()
    for number, take in enumerate(steps):
        if take or not alive:
            block = pool.acquire()
            assert (block.dtype, block.shape) == (dtype, (elements,))
            assert block.data_ptr() % 64 == 0
            addresses.add(block.data_ptr())
            alive.append((number, block.fill_(number)))
        else:
            alive.pop(len(alive) // 2)
            block = None
    assert all((block == number).all() for number, block in alive)
    most = alive_at_once(steps)
    assert len(addresses) <= most


def alive_at_once(steps: list[bool]) -> int:
    alive = most = 0
    for take in steps:
        alive += 1 if take or not alive else -1
        most = max(most, alive)
    return most


def test_any_view_of_a_block_keeps_it_lent() -> None:
    pool = BlockPool(60, torch.float32)
    part = pool.acquire()[:48].view(4, 12)[2, 3:5].numpy()[1:]
    gc.collect()
    assert len(pool._free) == 0
    del part
    assert len(pool._free) == 1
    pool.clear()
    assert len(pool._free) == 0


def test_lent_blocks_outlive_their_pool() -> None:
    pool = BlockPool(60, torch.float32)
    block = pool.acquire().fill_(3)
    del pool
    gc.collect()
    assert (block == 3).all()


# ---------------------------------------------------------------------------- side stream, on a CPU


def test_on_the_cpu_work_is_done_when_it_is_queued() -> None:
    counters = Counters(("upload", "render"))
    side = SideStream(torch.device("cpu"), counters, max_queued=1)
    assert side.stream is None
    for items in (3, 4):
        with side.queue(items) as queued:
            queued.keep_alive(object())
            queued.end_stage("upload")
            queued.end_stage("render")
        assert queued.event is None
        assert queued.is_done()
        queued.wait()
    assert counters.items == {"upload": 7, "render": 7}
    assert all(nanoseconds > 0 for nanoseconds in counters.nanoseconds.values())
    side.synchronize()
    assert not side._queue


def test_failed_work_is_not_counted_and_the_next_is_queued() -> None:
    counters = Counters(("upload", "render"))
    side = SideStream(torch.device("cpu"), counters, max_queued=2)
    with pytest.raises(ZeroDivisionError), side.queue(3) as queued:
        queued.end_stage("upload")
        raise ZeroDivisionError
    with side.queue(2) as queued:
        queued.end_stage("upload")
        queued.end_stage("render")
    assert counters.items == {"upload": 2, "render": 2}


def test_a_late_thread_and_its_successor_take_turns() -> None:
    counters = Counters(("render",))
    side, inside = SideStream(torch.device("cpu"), counters, max_queued=2), []

    def work() -> None:
        for _ in range(200):
            with side.queue(1) as queued:
                inside.append(1)
                assert len(inside) == 1
                queued.end_stage("render")
                inside.pop()
            side.synchronize()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counters.items == {"render": 600}
