"""How kernels read the tables: which block makes which piece of which view, and its decisions.

A launch covers views of several groups at once. Its `groups` table [n, 3] says for each group at
which block it starts, how many blocks make one of its views, and where its views start among all.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views import decisions as r
from patchmill.kernels.views.layout import SLOT

_NAMES = list(r.ROW.fields or ())


def _field(name: str) -> tl.constexpr:
    return tl.constexpr(_NAMES.index(name))


FIELDS = tl.constexpr(len(_NAMES))
BOX_Y, BOX_X, BOX_H, BOX_W = _field("box_y"), _field("box_x"), _field("box_h"), _field("box_w")
FULL_H, FULL_W, WIN_Y, WIN_X = _field("full_h"), _field("full_w"), _field("win_y"), _field("win_x")
FLIP, TURNS, GREY, SOLARISE = _field("flip"), _field("turns"), _field("grey"), _field("solarise")
ORDER, BRIGHTNESS, CONTRAST = _field("order"), _field("brightness"), _field("contrast")
SATURATION, HUE = _field("saturation"), _field("hue")
SIGMA, RADIUS = _field("sigma"), _field("radius")
PASTE, GROUND, SOFT = _field("paste"), _field("ground"), _field("soft")
GROUND_Y, GROUND_X = _field("ground_y"), _field("ground_x")

SLOT_WORDS = tl.constexpr(SLOT.itemsize // 8)
GROUP_FIELDS = tl.constexpr(3)


@triton.jit
def piece(groups, n_groups, block):
    """Which entry, of the groups' table the block works for; its number there, of how many."""
    group = 0
    for other in range(1, n_groups):
        group += (block >= tl.load(groups + other * GROUP_FIELDS)).to(tl.int32)
    own = groups + group * GROUP_FIELDS
    blocks = tl.load(own + 1)
    block -= tl.load(own)
    return tl.load(own + 2) + block // blocks, block % blocks, blocks


@triton.jit
def slot_of(slots, view, sample, EVEN: tl.constexpr):
    """Where the view starts in the batch, its side, and where its scales and shifts are."""
    slot = slots + view * SLOT_WORDS
    at = tl.load(slot) + tl.load(slot + 1) * sample
    size = tl.load(slot + 2).to(tl.int32)
    if EVEN:
        at, size = tl.multiple_of(at, 16), tl.multiple_of(size, 16)
    return at, size, (slot + 4).to(tl.pointer_type(tl.float32))


@triton.jit
def number(row, field):
    """A float of the row, whose bits the table holds as an integer."""
    return tl.load(row + field).to(tl.float32, bitcast=True)
