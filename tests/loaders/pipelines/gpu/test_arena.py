"""Arenas: allocations do not overlap, are aligned, and return when nothing uses them."""

from __future__ import annotations

import itertools
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
from patchmill.loaders.pipelines.memory import BlockPool

BLOCK = 4096  # in these tests


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas, "BLOCK_BYTES", BLOCK)


def new(count: int = 1) -> list[Arena]:
    pool = BlockPool(BLOCK, torch.uint8)
    return [Arena(pool) for _ in range(count)]


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
