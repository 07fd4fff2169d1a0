"""Block pools on the host: a block is lent to one at a time, and returns when nothing uses it."""

from __future__ import annotations

import gc

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.pipelines.memory import BlockPool


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
