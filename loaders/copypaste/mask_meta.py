"""Metadata of mask files and of the estimators that made masks, with every field of its type.

It comes with downloaded data, where a checksum shows accidents but not what somebody wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patchmill.loaders.common.printed import printable

_LONGEST = 1000  # characters of a text

# What a file that was written by other means may lack, and what stands for it then.
_DEFAULTS: dict[str, Any] = {
    "source": "",
    "estimator": None,
    "max_side": 0,
    "made": {},
    "made_by": "another program",
}


def complete(meta: Mapping[str, Any], count: int) -> dict[str, Any] | None:
    """The metadata of a file of `count` masks, with all fields; None if one cannot be as it is."""
    filled = {**_DEFAULTS, "samples": count, **meta}
    sound = (
        is_text(filled["source"])
        and is_text(filled["made_by"])
        and type(filled["samples"]) is int
        and filled["samples"] == count
        and type(filled["max_side"]) is int
        and isinstance(filled["made"], dict)
        and (filled["estimator"] is None or is_estimator(filled["estimator"]))
    )
    return filled if sound else None


def is_estimator(value: Any) -> bool:
    """True for what identifies an estimator: a method, its version, and perhaps a fingerprint."""
    return (
        isinstance(value, dict)
        and is_text(value.get("method"))
        and type(value.get("version")) is int
        and is_text(value.get("fingerprint", ""))
    )


def is_text(value: Any) -> bool:
    """True for a text of reasonable length that can be shown in a line."""
    return isinstance(value, str) and len(value) <= _LONGEST and printable(value) == value
