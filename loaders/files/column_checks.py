"""Validate the contents of column files: the types that readers and compiled code expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from patchmill.loaders.files.columns import Columns


def has_columns(
    found: Columns, dtypes: Mapping[str, str], optional: Mapping[str, str] | None = None
) -> bool:
    """True if all columns (`optional` ones if present) have these types and one dimension."""
    expected = {**dtypes, **(optional or {})}
    return dtypes.keys() <= found.columns.keys() and all(
        found[name].dtype.str == dtype and len(found[name].shape) == 1
        for name, dtype in expected.items()
        if name in found.columns
    )


def has_meta(found: Columns, kinds: Mapping[str, type]) -> bool:
    """True if each of these metadata fields has its type; lists must hold texts."""
    values = {name: found.meta.get(name) for name in kinds}
    return all(
        type(values[name]) is kind and (kind is not list or is_list_of_texts(values[name]))
        for name, kind in kinds.items()
    )


def is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def are_starts(starts: np.ndarray, count: int, end: int) -> bool:
    """True if these are the starts of `count` consecutive items that end at `end` or before."""
    if count < 0 or len(starts) != count + 1:
        return False
    return bool((starts[1:] >= starts[:-1]).all() and starts[0] == 0 and starts[-1] <= end)


def are_shares(numbers: np.ndarray) -> bool:
    """True if all numbers are from 0 to 1."""
    return bool(((numbers >= 0) & (numbers <= 1)).all())


def are_below(numbers: np.ndarray, count: int) -> bool:
    """True if all numbers are valid indices of `count` items."""
    return bool(((numbers >= 0) & (numbers < count)).all())
