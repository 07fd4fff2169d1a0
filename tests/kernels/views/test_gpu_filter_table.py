"""The filter table's records have room for every weight, and none overlap."""

from __future__ import annotations

import itertools

import numpy as np
from helpers_views import make_row, target
from hypothesis import given
from hypothesis import strategies as st

from patchmill.kernels.views.gpu import tables

lengths = st.one_of(st.integers(1, 40), st.integers(1, 100_000))


@st.composite
def rows(draw: st.DrawFn) -> np.void:
    """Any box of any image, resized to anything, and any window of it."""
    boxes = {f"box_{side}": draw(lengths) for side in "hw"}
    fulls = {f"full_{side}": draw(lengths) for side in "hw"}
    windows = {f"win_{axis}": draw(st.integers(-50, 100_000)) for axis in "yx"}
    return make_row(np.zeros((1, 1, 3), np.uint8), 1, **boxes, **fulls, **windows)


@given(st.lists(rows(), min_size=2, max_size=2), st.integers(1, 300), st.booleans())
def test_room_for_every_weight(views: list[np.void], size: int, bicubic: bool):
    its = target(size, bicubic, 2)
    table, numbers = tables.filter_table(np.array([views]), [its])
    tile, ends = tables.tile_of(size), []
    for row, fields in zip(views, table[0], strict=True):
        for axis, (side, window) in enumerate((("h", "win_y"), ("w", "win_x"))):
            records = -(-size // tile)
            for first in range(0, size, tile):
                needed = _source_pixels(
                    row[f"box_{side}"], row[f"full_{side}"], row[window] + first, tile, bicubic
                )
                units = 1 + tile * (2 + 32 * -(-needed // 32)) // 8
                assert units <= fields[2 * axis + 1]
            ends.append((fields[2 * axis], fields[2 * axis] + records * fields[2 * axis + 1]))
    ends.sort()
    assert ends[0][0] == 0 and 8 * ends[-1][1] == numbers
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))


def _source_pixels(box: int, full: int, begin: int, tile: int, bicubic: bool) -> int:
    """As `gpu.footprint` computes it."""
    scale = np.float64(box) / np.float64(full)
    reach = (2 if bicubic else 1) * max(scale, 1.0)
    low, high = (min(max(at, 0), full - 1) for at in (begin, begin + tile - 1))
    start = int(max((low + 0.5) * scale - reach, 0))
    return min(int((high + 0.5) * scale + reach) + 1, int(box)) - start
