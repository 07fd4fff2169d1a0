"""Table access in kernels: field offsets of decision rows, slots, and block scheduling.

One launch covers views of several groups. Its `groups` table [n_groups, 3] holds, per group, the
first block, the blocks per view, and the first entry (a view, or an index into a list of views).
The passes after `resize` have such a table for each chunk of images.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views import decisions
from patchmill.kernels.views.layout import SLOT

_NAMES = list(decisions.ROW.fields or ())


def _field(name: str) -> tl.constexpr:
    return tl.constexpr(_NAMES.index(name))


FIELDS = tl.constexpr(len(_NAMES))
BOX_Y, BOX_X, BOX_H, BOX_W = _field("box_y"), _field("box_x"), _field("box_h"), _field("box_w")
FULL_H, FULL_W, WIN_Y, WIN_X = _field("full_h"), _field("full_w"), _field("win_y"), _field("win_x")
FLIP, TURNS, GREY, SOLARISE = _field("flip"), _field("turns"), _field("grey"), _field("solarise")
ORDER, BRIGHTNESS, CONTRAST = _field("order"), _field("brightness"), _field("contrast")
SATURATION, HUE = _field("saturation"), _field("hue")
BLUR_SIGMA, BLUR_RADIUS = _field("sigma"), _field("radius")
PASTE, BACKGROUND, MASK_SIGMA = _field("paste"), _field("background"), _field("mask_sigma")
BACKGROUND_Y, BACKGROUND_X = _field("background_y"), _field("background_x")

PLANES_WORD = tl.constexpr(SLOT.itemsize // 8)  # after the SLOT: offset of a chunk's planes
SLOT_WORDS = tl.constexpr(SLOT.itemsize // 8 + 1)
GROUP_FIELDS = tl.constexpr(3)


@triton.jit
def locate_block(
    groups,  # [n_groups, 3] int32
    n_groups,
    block,
):  # fmt: skip
    """The entry that a block works on, the block's index within it, and blocks per entry."""
    # The last group whose first block is not after this one: count those after the first.
    group = 0
    for first in range(1, n_groups, 32):
        other = first + tl.arange(0, 32)
        begin = tl.load(groups + other * GROUP_FIELDS, other < n_groups, 0x7FFFFFFF)
        group += tl.sum((begin <= block).to(tl.int32))
    entry = groups + group * GROUP_FIELDS
    blocks = tl.load(entry + 1)
    block -= tl.load(entry)
    return tl.load(entry + 2) + block // blocks, block % blocks, blocks


@triton.jit
def load_slot(
    slots,  # [n_views, SLOT_WORDS] int64
    view, sample, first_sample,
    ALIGNED: tl.constexpr,
):  # fmt: skip
    """A view's offsets in the flat batch and in the planes of the chunk from `first_sample` on.

    Also its side, and the address of its scales and shifts.
    """
    slot = slots + view * SLOT_WORDS
    stride = tl.load(slot + 1)
    offset = tl.load(slot) + stride * sample
    in_planes = tl.load(slot + PLANES_WORD) + stride * (sample - first_sample)
    size = tl.load(slot + 2).to(tl.int32)
    if ALIGNED:
        offset, size = tl.multiple_of(offset, 16), tl.multiple_of(size, 16)
        in_planes = tl.multiple_of(in_planes, 16)
    return offset, in_planes, size, (slot + 4).to(tl.pointer_type(tl.float32))


@triton.jit
def load_float(
    row,  # [FIELDS] int32
    field,
):  # fmt: skip
    """Load a float field of a row, stored as its bits."""
    return tl.load(row + field).to(tl.float32, bitcast=True)
