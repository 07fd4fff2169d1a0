"""Copy-paste in a lane's compiled code: masks are looked up, and backgrounds chosen and decoded.

Both are the same as in `loaders/pipelines/samples.py`. What compiled code cannot do (masks that are
not plain PNGs, backgrounds of another data set) is left to a Python function, sample by sample.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from patchmill.kernels.views.decisions import ON_IMAGE, PASTE_NEVER
from patchmill.loaders.copypaste import mask_places
from patchmill.loaders.copypaste.backgrounds import CANDIDATES, NO_MASK
from patchmill.loaders.copypaste.mask_places import MaskPlaces, Shares
from patchmill.loaders.pipelines.ffcv import jpeg, mask
from patchmill.loaders.pipelines.ffcv.calls import by_address, compiled_once, nanoseconds
from patchmill.loaders.plan import draw

# Results of `paste_inputs`: nothing is pasted; all inputs are there, or Python has read them; the
# mask is missing, degenerate, or unusable according to Python; an error, which Python keeps.
NOTHING, INPUTS, READ_IN_PYTHON, ABSENT, DEGENERATE, UNMASKED, FAILED = range(7)

# (id, epoch, address of the rows, address of `inputs`) -> READ_IN_PYTHON, UNMASKED or FAILED
PASTE = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
)
SHARE = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)  # id -> share of foreground; NO_MASK

# `inputs`: address, height and width of a mask and of a background, 0 where there is none; and the
# nanoseconds that decoding the background took
BACKGROUND_HEIGHT, DECODE_NS, INPUT_NUMBERS = 4, 6, 7


@dataclass(frozen=True, eq=False)
class PasteConstants:
    """Values that are compiled into the code."""

    seed: int
    places: MaskPlaces | None  # None: Python reads every mask
    shares: Shares | None
    own_backgrounds: bool  # True: backgrounds are samples of the same file
    in_python: Any  # a PASTE
    share_in_python: Any  # a SHARE

    @property
    def encoded_bytes(self) -> int:
        """Memory needed for the largest PNG."""
        if self.places is None:
            return 0
        return min(int(self.places.places["size"].max(initial=0)), mask.MOST_ENCODED)


def compile_paste_inputs(constants: PasteConstants | None, obtain: Any) -> Any:
    """Compile the search for a planned sample's mask and background; `obtain` is the lane's.

    Without `constants` there is nothing to paste.
    """
    if constants is None:

        @numba.njit(nogil=True, error_model="numpy")
        def no_inputs(  # type: ignore[no-untyped-def]
            id, epoch, row, metadata, storage, encoded, masks, other, header, inputs, clock
        ):
            return NOTHING, masks

        return no_inputs

    places, shares, in_python = constants.places, constants.shares, constants.in_python
    if places is None or shares is None:

        @numba.njit(nogil=True, error_model="numpy")
        def by_python(  # type: ignore[no-untyped-def]
            id, epoch, row, metadata, storage, encoded, masks, other, header, inputs, clock
        ):
            inputs[:] = 0
            if not pastes(row):
                return NOTHING, masks
            return in_python(id, epoch, row.ctypes.data, inputs.ctypes.data), masks

        return by_python

    file, count, place_bytes = places.file, len(places.places), places.places.nbytes
    places_at, shares_at, base = places.places.ctypes.data, shares.table.ctypes.data, shares.base
    own_backgrounds, share_in_python = constants.own_backgrounds, constants.share_in_python
    seed = np.uint64(constants.seed)
    read = by_address(
        mask.read, 0, 0, 0, 0, np.empty(0, np.uint8), np.empty(0, np.uint8), np.empty(0, np.int32)
    )
    share_of = by_address(mask.share, np.empty(0, np.uint8))
    candidate = by_address(draw.background_candidate, np.uint64(0), 0, 0, 1, 0)
    PLACE = mask_places.PLACE

    @numba.njit(nogil=True, error_model="numpy")
    def decode(id, encoded, masks, header):  # type: ignore[no-untyped-def]
        """Read a mask to the start of `masks`, or larger memory; return outcome and memory."""
        place = jpeg.bytes_at(places_at, place_bytes).view(PLACE)[id]
        start, size = np.int64(place.start), np.int64(place.size)
        checksum = np.int64(place.checksum)
        outcome = read(file, start, size, checksum, encoded, masks, header)
        if outcome == mask.LARGER:
            masks = np.empty(3 * np.int64(header[0]) * np.int64(header[1]), np.uint8)
            outcome = read(file, start, size, checksum, encoded, masks, header)
        return outcome, masks

    decode = compiled_once(decode)

    @numba.njit(nogil=True, error_model="numpy")
    def choose(id, epoch, encoded, masks, header):  # type: ignore[no-untyped-def]
        """The candidate with the least foreground, as `backgrounds.least_foreground` finds it."""
        table = jpeg.bytes_at(shares_at, 4 * count).view(np.float32)
        best, least = id, np.inf
        for attempt in range(CANDIDATES):
            other = np.int64(candidate(seed, epoch, id, count, attempt))
            if other == id:
                continue
            known = np.float64(table[other])
            if known == 0:
                outcome, masks = decode(other, encoded, masks, header)
                if outcome == mask.DECODED and base != 0:
                    size = np.int64(header[0]) * np.int64(header[1])
                    share = share_of(masks[:size])
                    table[other] = -1 if share < 0 else 1 + share
                    known = np.float64(table[other])
                else:
                    known = share_in_python(other) + base
            share = NO_MASK if known < 0 else known - base
            if share < least:
                best, least = other, share
        return best, masks

    @numba.njit(nogil=True, error_model="numpy")
    def paste_inputs(  # type: ignore[no-untyped-def]
        id, epoch, row, metadata, storage, encoded, masks, other, header, inputs, clock
    ):
        inputs[:] = 0
        if not pastes(row):
            return NOTHING, masks
        kind = jpeg.bytes_at(places_at, place_bytes).view(PLACE)[id].kind
        if kind == mask_places.ABSENT or kind == mask_places.DEGENERATE:
            row.paste[:] = PASTE_NEVER
            return (ABSENT if kind == mask_places.ABSENT else DEGENERATE), masks
        on_image, background = False, id
        for v in range(len(row)):
            on_image |= row[v].paste == ON_IMAGE
        outcome = mask.OTHER
        if kind == mask_places.USABLE and (own_backgrounds or not on_image):
            if on_image:
                background, masks = choose(id, epoch, encoded, masks, header)
            outcome, masks = decode(id, encoded, masks, header)
        height, width = np.int64(header[0]), np.int64(header[1])
        if outcome != mask.DECODED:
            return in_python(id, epoch, row.ctypes.data, inputs.ctypes.data), masks
        if share_of(masks[: height * width]) < 0:
            row.paste[:] = PASTE_NEVER
            return DEGENERATE, masks
        inputs[0], inputs[1], inputs[2] = masks.ctypes.data, height, width
        if on_image:
            began = nanoseconds(clock)
            found, address = obtain(background, metadata, storage, epoch, other, header, 1)
            if found < 0:
                return FAILED, masks
            inputs[3], inputs[4], inputs[5] = address, header[0], header[1]
            inputs[DECODE_NS] = nanoseconds(clock) - began
        return INPUTS, masks

    return compiled_once(paste_inputs)


@numba.njit(nogil=True)
def pastes(row: np.ndarray) -> bool:
    """True if any view of a sample is to be pasted."""
    for v in range(len(row)):
        if row[v].paste != PASTE_NEVER:
            return True
    return False
