"""Validate the metadata of mask files, and of the estimators that made masks.

It comes with downloaded data, where a checksum detects accidents but not malicious content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patchmill.loaders.common.printed import printable

_LONGEST = 1000  # characters of a text

# Defaults of fields that a file written by another program may lack.
_DEFAULTS: dict[str, Any] = {
    "source": "",
    "estimator": None,
    "max_side": 0,
    "made": {},
    "made_by": "another program",
}


def complete(meta: Mapping[str, Any], count: int) -> dict[str, Any] | None:
    """The metadata of a file of `count` masks, with all fields; None if one is invalid."""
    filled = {**_DEFAULTS, "samples": count, **meta}
    valid = (
        is_text(filled["source"])
        and is_text(filled["made_by"])
        and type(filled["samples"]) is int
        and filled["samples"] == count
        and type(filled["max_side"]) is int
        and isinstance(filled["made"], dict)
        and (filled["estimator"] is None or is_estimator(filled["estimator"]))
    )
    return filled if valid else None


def is_estimator(value: Any) -> bool:
    """True for an estimator's identity: a method, its version, and optionally a fingerprint."""
    return (
        isinstance(value, dict)
        and is_text(value.get("method"))
        and type(value.get("version")) is int
        and is_text(value.get("fingerprint", ""))
    )


def is_text(value: Any) -> bool:
    """True for a text of reasonable length that can be printed on one line."""
    return isinstance(value, str) and len(value) <= _LONGEST and printable(value) == value
