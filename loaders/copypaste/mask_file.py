"""Mask files: the masks of a data set as small PNGs with their statistics.

A `columns` file with one row per sample:

    pngs u1, starts u8          all PNGs, concatenated, and their n + 1 offsets
    checksums u4                CRC-32 of each PNG
    heights u2, widths u2       of the mask in pixels; 0 if there is none
    foregrounds f4              share of foreground pixels
    confidences f4              1: all black or white; 0: all mid-grey
    states u1                   GOOD, DEGENERATE (not for training), MISSING (the image is bad)
    whys u1, why_starts u8      the reason for a state other than GOOD, as text

Metadata (`mask_meta` checks it): `source` (fingerprint of the data set), `samples`, `estimator`
(method, version, constants and fingerprint), `max_side`, `made` (the options), `made_by`; `counts`
of the states, for other programs that read the header.
"""

from __future__ import annotations

import os
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchmill.loaders.common.printed import printable
from patchmill.loaders.copypaste import mask_meta, mask_places
from patchmill.loaders.copypaste.mask_places import MaskPlaces, Shares
from patchmill.loaders.files import columns
from patchmill.loaders.files.column_checks import are_shares, are_starts, has_columns
from patchmill.loaders.sources.shards import tar

KIND = "masks 1"
GOOD, DEGENERATE, MISSING = range(3)
STATES = ("good", "degenerate", "missing")

_KINDS = np.array([mask_places.USABLE, mask_places.DEGENERATE, mask_places.ABSENT], np.uint8)
_BITS = 4  # 16 grey levels; 8 bits would double the file to store noise


class MaskRow(NamedTuple):
    """One sample's row."""

    state: int
    height: int
    width: int
    foreground: float
    confidence: float
    checksum: int
    why: str
    png: bytes


class MaskFile:
    """An open mask file; MillError if it is missing, damaged or of another kind.

    Each PNG is read on request, and verified by its own checksum.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns = columns.read(path, KIND, only=_DTYPES, valid=lambda c: _is_valid(path, c))
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._pngs = self._columns.places["pngs"]
        self.states = self._columns["states"]
        self.meta = mask_meta.complete(self._columns.meta, len(self.states)) or {}
        self.counts = _counts(self.states)
        self.foregrounds = self._columns["foregrounds"]
        self.confidences = self._columns["confidences"]
        self.checksums, self._starts = self._columns["checksums"], self._columns["starts"]

    def __len__(self) -> int:
        return len(self.states)

    @property
    def png_bytes(self) -> int:
        """Size of all PNGs."""
        return int(self._starts[-1])

    def mask(self, index: int) -> np.ndarray | None:
        """The mask [height, width], even if degenerate; OSError if damaged, None if missing."""
        from patchmill.loaders.copypaste.mask_png import decode_mask

        data = self.png(index)
        return None if data is None else decode_mask(data, lambda: f"{self.path}, mask {index}")

    def foreground(self, index: int) -> float | None:
        """Share of foreground pixels of a GOOD mask, without decoding it; None for other states."""
        return float(self.foregrounds[index]) if self.states[index] == GOOD else None

    def mask_places(self) -> MaskPlaces:
        """Places of the PNGs."""
        places = np.zeros(len(self), mask_places.PLACE)
        places["start"], places["size"] = (
            self._starts[:-1] + np.uint64(self._pngs),
            np.diff(self._starts),
        )
        places["checksum"], places["kind"] = self.checksums, _KINDS[self.states]
        return MaskPlaces(self._file, places)

    def shares(self) -> Shares:
        """`foreground` of all masks."""
        return Shares(np.where(self.states == GOOD, self.foregrounds, np.float32(-1)), 0.0)

    def png(self, index: int) -> bytes | None:
        """The PNG as stored."""
        if self.states[index] == MISSING:
            return None
        start, stop = self._starts[index : index + 2].tolist()
        data = tar.read_at(self._file, stop - start, self._pngs + start)  # releases the GIL
        if zlib.crc32(data) != int(self.checksums[index]):
            raise OSError("its mask is damaged: the checksum differs")
        return data

    def why(self, index: int) -> str:
        """The reason why a mask is not GOOD; empty if it is."""
        why = columns.item(self._columns["whys"], self._columns["why_starts"], index)
        return printable(why.decode(errors="replace"))


def mask_row(plane: np.ndarray, foreground: float, confidence: float, why: str) -> MaskRow:
    """A row for an estimated mask, DEGENERATE if `why` gives a reason."""
    from patchmill.loaders.copypaste.mask_png import encode_mask

    height, width = plane.shape
    png, state = encode_mask(plane, _BITS), DEGENERATE if why else GOOD
    return MaskRow(state, height, width, foreground, confidence, zlib.crc32(png), why, png)


def missing_row(why: str) -> MaskRow:
    """A row for an image that cannot be masked."""
    return MaskRow(MISSING, 0, 0, 0.0, 0.0, 0, why, b"")


def write_mask_file(
    path: Path, rows: Callable[[], Iterable[MaskRow]], count: int, meta: dict[str, Any]
) -> dict[str, int]:
    """Write the file atomically, iterating `rows()` twice; return the counts of its states.

    Raises OSError.
    """
    table = np.zeros(count, _TABLE)
    sizes, why_sizes = np.zeros(count + 1, np.uint64), np.zeros(count + 1, np.uint64)
    whys = []
    for i, row in enumerate(rows()):
        table[i] = row[:_TABLE_FIELDS]
        sizes[i + 1], why_sizes[i + 1] = len(row.png), len(why := row.why.encode())
        whys.append(why)
    starts = np.cumsum(sizes, dtype=np.uint64)
    counts = _counts(table["state"])
    content: dict[str, np.ndarray | columns.Parts] = {
        "pngs": columns.Parts(np.dtype(np.uint8), int(starts[-1]), _pngs(rows())),
        "starts": starts,
        "whys": np.frombuffer(b"".join(whys), np.uint8),
        "why_starts": np.cumsum(why_sizes, dtype=np.uint64),
        **{f"{name}s": np.ascontiguousarray(table[name]) for name in _TABLE.names or ()},
    }
    columns.write(path, KIND, content, {**meta, "counts": counts})
    return counts


_TABLE = np.dtype(
    [
        ("state", "u1"),
        ("height", "<u2"),
        ("width", "<u2"),
        ("foreground", "<f4"),
        ("confidence", "<f4"),
        ("checksum", "<u4"),
    ]
)
_TABLE_FIELDS = 6  # the leading fields of a row, which the table holds
_DTYPES = {  # of the columns that are kept in memory
    **{f"{name}s": _TABLE[name].str for name in _TABLE.names or ()},
    "starts": "<u8",
    "whys": "|u1",
    "why_starts": "<u8",
}


def _pngs(rows: Iterable[MaskRow]) -> Iterator[np.ndarray]:
    for row in rows:
        yield np.frombuffer(row.png, np.uint8)


def _counts(states: np.ndarray) -> dict[str, int]:
    return {name: int((states == i).sum()) for i, name in enumerate(STATES)}


def _is_valid(path: Path, found: columns.Columns) -> bool:
    """True if the columns are consistent, and the metadata has the expected types."""
    tables = found.columns
    if not has_columns(found, _DTYPES) or "pngs" not in found.places:
        return False
    size = os.path.getsize(path) - found.places["pngs"]
    count = len(tables["states"])
    return (
        all(len(tables[f"{name}s"]) == count for name in _TABLE.names or ())
        and bool((tables["states"] < len(STATES)).all())
        and all(are_shares(tables[name]) for name in ("foregrounds", "confidences"))
        and are_starts(tables["starts"], count, size)
        and are_starts(tables["why_starts"], count, len(tables["whys"]))
        and mask_meta.complete(found.meta, count) is not None
    )
