"""Places of a batch's images in its arena: all of them are known before anything is decoded."""

from __future__ import annotations

from typing import Any

import helpers_ffcv  # noqa: F401  # skips without FFCV
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchmill.loaders.pipelines.gpu import arena
from patchmill.loaders.pipelines.memory import BlockPool

BLOCK = 256


@given(st.lists(st.integers(0, 400), max_size=40))
def test_images_lie_side_by_side_in_as_few_blocks_as_one_by_one(sizes: list[int]) -> None:
    from patchmill.loaders.pipelines.ffcv import workarounds  # noqa: F401  # isort: skip
    from patchmill.loaders.pipelines.ffcv import ragged

    with pytest.MonkeyPatch.context() as patch:
        for module in (arena, ragged):
            patch.setattr(module, "BLOCK_BYTES", BLOCK)
        own, other = (arena.Arena(BlockPool(BLOCK, torch.uint8)) for _ in range(2))
        locations, addresses = ragged.lay_out(own, np.array(sizes, np.int64))
        for size in filter(None, sizes):
            other.allocate(size)
    taken: dict[int, list[tuple[int, int]]] = {}
    for size, (block, offset), address in zip(sizes, locations.tolist(), addresses, strict=True):
        if not size:
            assert (block, address) == (arena.NOT_IN_ARENA, 0)
            continue
        memory: Any = own.memory[block].numpy()
        assert address == memory.ctypes.data + offset and offset % 16 == 0
        assert offset + size <= own.used[block] <= len(memory) + 15
        taken.setdefault(block, []).append((offset, offset + size))
    for spans in taken.values():
        for (_, end), (start, _) in zip(sorted(spans), sorted(spans)[1:], strict=False):
            assert end <= start
    assert len(own.memory) <= len(other.memory)
