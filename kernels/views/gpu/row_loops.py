"""Compiled loops over a batch's decision rows, to build host-side tables without the interpreter.

They take contiguous rows [N, V].
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit_ieee
from patchmill.kernels.views.decisions import NO_JITTER

# The views of a target, among the targets that share a compiled variant.
MEMBER = np.dtype(
    [
        ("first", "i8"),
        ("stop", "i8"),
        ("large", "i8"),  # True if they have several tiles, so that contrast is a separate pass
        ("contrast_blocks", "i8"),  # per view
        ("tiles", "i8"),  # per view
    ]
)


@jit_ieee
def first_outside(rows: np.ndarray, shapes: np.ndarray) -> int:
    """Position (image * V + view) of the first box that is not inside its image; -1 for none.

    `shapes` [N, 2] int64 are heights and widths.
    """
    for image in range(rows.shape[0]):
        height, width = shapes[image, 0], shapes[image, 1]
        for view in range(rows.shape[1]):
            row = rows[image, view]
            y, x = np.int64(row.box_y), np.int64(row.box_x)
            h, w = np.int64(row.box_h), np.int64(row.box_w)
            if y < 0 or x < 0 or h <= 0 or w <= 0 or y + h > height or x + w > width:
                return image * rows.shape[1] + view
    return -1


@jit_ieee
def any_planes(rows: np.ndarray, members: np.ndarray) -> bool:
    """True if a view of these MEMBERs needs a contrast or blur pass."""
    for image in range(rows.shape[0]):
        for group in range(len(members)):
            for view in range(members[group].first, members[group].stop):
                row = rows[image, view]
                if row.sigma > 0:
                    return True
                if members[group].large and row.order != NO_JITTER and row.contrast != 1:
                    return True
    return False


@jit_ieee
def sort_rows(
    rows: np.ndarray,
    chunk: int,
    members: np.ndarray,
    entries: np.ndarray,
    groups: np.ndarray,
    blocks: np.ndarray,
) -> tuple[int, int, int]:
    """Schedule the passes of MEMBERs after `resize`: contrast first, then blur, as `tables.Pass`.

    Fill entries [2, N * V], groups [2, chunks, members, 3], and blocks [2, chunks], which must be
    zeros on entry. Return the number of entries of each, and the bit set of background kinds.
    """
    n_contrast, n_blur, kinds = 0, 0, 0
    for group in range(len(members)):
        member = members[group]
        for number in range(blocks.shape[1]):
            first_contrast, first_blur = n_contrast, n_blur
            for image in range(number * chunk, min((number + 1) * chunk, rows.shape[0])):
                for view in range(member.first, member.stop):
                    row, place = rows[image, view], image * rows.shape[1] + view
                    kinds |= 1 << int(row.paste)
                    if member.large and row.order != NO_JITTER and row.contrast != 1:
                        entries[0, n_contrast] = place
                        n_contrast += 1
                    if row.sigma > 0:
                        entries[1, n_blur] = place
                        n_blur += 1
            for of, per_view, first, end in (
                (0, member.contrast_blocks, first_contrast, n_contrast),
                (1, member.tiles, first_blur, n_blur),
            ):
                groups[of, number, group, 0] = blocks[of, number]
                groups[of, number, group, 1] = per_view
                groups[of, number, group, 2] = first
                blocks[of, number] += per_view * (end - first)
    return n_contrast, n_blur, kinds


@jit_ieee
def lay_out_filters(
    rows: np.ndarray,
    tiles: np.ndarray,
    sides: np.ndarray,
    reaches: np.ndarray,
    step: int,
    unit: int,
    table: np.ndarray,
) -> int:
    """Fill the table [N, V, 4] of `gpu.filters`; return the units of all records.

    Views have `sides` tiles per side, of `tiles` pixels per side, and filters of this reach.
    """
    total = 0
    for axis in range(2):
        for image in range(rows.shape[0]):
            for view in range(rows.shape[1]):
                row, tile = rows[image, view], tiles[view]
                box = np.int64(row.box_h if axis == 0 else row.box_w)
                scale = box / np.int64(row.full_h if axis == 0 else row.full_w)
                longest = np.int64((tile - 1) * scale + reaches[view] * max(scale, 1.0) + 3)
                steps = (min(longest, box) + step - 1) // step
                size = 1 + tile * (2 + step * steps) // unit
                table[image, view, 2 * axis], table[image, view, 2 * axis + 1] = total, size
                total += sides[view] * size
    return total
