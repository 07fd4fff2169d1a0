"""Read a shard's index and check that its columns are consistent with each other and the tar.

The checksums of an index reveal accidental damage. Its values are checked as well, because an index
comes with downloaded data, and those of earlier versions have no checksums.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from patchmill.loaders.files import columns
from patchmill.loaders.files.column_checks import are_below, are_starts, has_columns, has_meta
from patchmill.loaders.files.columns import Columns

DTYPES = {
    "offsets": "<u8",
    "sizes": "<u4",
    "checksums": "<u4",
    "labels": "<i8",
    "mask_offsets": "<u8",
    "mask_sizes": "<u4",
    "mask_checksums": "<u4",
}
_FOLDER_DTYPES = {"folders": "<u4", "folder_names": "|u1", "folder_starts": "<i8"}
_META = {
    "tar_bytes": int,
    "tar_mtime_ns": int,
    "members": int,
    "classes": list,
    "fingerprint": str,
    "imageless": int,
    "first_imageless": str,
}


def read(path: Path, kind: str) -> Columns:
    """Read an index; MillError if it is damaged, or cannot describe any tar."""
    return columns.read(path, kind, valid=is_valid)


def is_valid(index: Columns) -> bool:
    """True if an index can describe a tar: its columns are consistent, and lie inside it."""
    meta, found = index.meta, index.columns
    if not has_meta(index, _META) or not 0 <= meta["tar_bytes"] < 1 << 63:
        return False
    if not meta["fingerprint"].isascii():
        return False
    expected = DTYPES | _FOLDER_DTYPES
    if not found.keys() <= expected.keys() or not has_columns(index, {}, expected):
        return False
    rows = {len(column) for name, column in found.items() if not name.startswith("folder_")}
    pairs = [("offsets", "sizes")]
    if any(name.startswith("mask_") for name in found):
        pairs.append(("mask_offsets", "mask_sizes"))
    if len(rows) != 1 or not all(name in found for pair in pairs for name in pair):
        return False
    inside = all(_lie_in(meta["tar_bytes"], found[a], found[b]) for a, b in pairs)
    return inside and ("folders" not in found or _folders_are_sound(found))


def _lie_in(size: int, offsets: np.ndarray, sizes: np.ndarray) -> bool:
    return bool(((offsets <= size) & (sizes <= size - offsets.clip(max=size))).all())


def _folders_are_sound(found: Mapping[str, np.ndarray]) -> bool:
    if not all(name in found for name in _FOLDER_DTYPES):
        return False
    starts, names = found["folder_starts"], found["folder_names"]
    count = len(starts) - 1
    return are_starts(starts, count, len(names)) and are_below(found["folders"], count)
