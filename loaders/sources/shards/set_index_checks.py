"""Check that the columns of a cached set index are consistent, even if their checksums match.

Large columns are not read for this: their values are compared with the tars when samples are read.
"""

from __future__ import annotations

from patchmill.loaders.files.column_checks import are_starts, has_columns, has_meta
from patchmill.loaders.files.columns import Columns
from patchmill.loaders.sources.shards import index_checks

_LABELS = ("<i2", "<i4", "<i8")
_SMALL = {"starts": "<i8", "checked": "|u1", "paths": "|u1", "path_starts": "<i8"}
_ROWS = {name: dtype for name, dtype in index_checks.DTYPES.items() if name != "labels"}
_META = {"fingerprint": str, "classes": list}


def is_valid(found: Columns) -> bool:
    columns = found.columns
    masks = [name in columns for name in ("mask_offsets", "mask_sizes")]
    if not has_columns(found, {**_SMALL, "offsets": "<u8", "sizes": "<u4"}, _ROWS):
        return False
    if not has_meta(found, _META) or any(masks) != all(masks):
        return False
    if "labels" in columns and not any(has_columns(found, {"labels": kind}) for kind in _LABELS):
        return False
    shards, rows = len(found["checked"]), len(found["offsets"])
    widths = {"states": 3, "tar_states": 2}
    if any(
        name not in columns or columns[name].dtype.str != "<i8" or columns[name].ndim != 2
        or columns[name].shape[1] != width or len(columns[name]) < shards
        for name, width in widths.items()
    ):  # fmt: skip
        return False
    return (
        rows > 0
        and all(len(columns[name]) == rows for name in (*_ROWS, "labels") if name in columns)
        and are_starts(found["starts"], shards, rows)
        and found["starts"][-1] == rows
        and are_starts(found["path_starts"], shards, len(found["paths"]))
    )
