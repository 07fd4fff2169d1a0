"""Class numbers and class names for the labels of a list."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from patchmill.loaders.common.errors import MillError

_MAX_CLASSES = 1 << 20  # larger numbers are not classes
# Python's int also accepts "1_2" and the digits of other scripts; it rejects too many digits.
_is_number = re.compile(r"\s*[-+]?[0-9]{1,4000}\s*").fullmatch


def numbered(name: str, labels: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Class names and the int64 class of each sample; labels that are not all integers are sorted.

    `name` is the name of the list, for messages.
    """
    distinct = sorted(set(labels))
    if not all(_is_number(label) for label in distinct):
        return distinct, _looked_up({label: i for i, label in enumerate(distinct)}, labels)
    numbers = {label: int(label) for label in distinct}
    least, most = min(numbers.values(), default=0), max(numbers.values(), default=0)
    if not -(2**63) <= least <= most < 2**63:
        raise MillError(f"{name} has a label of more than 64 bits: {most}")
    found = _looked_up(numbers, labels)
    return names_of(found), found


def names_of(numbers: np.ndarray) -> list[str]:
    """Class names for class numbers without names; empty if these are not class numbers."""
    if not len(numbers) or numbers.min() < 0 or numbers.max() >= _MAX_CLASSES:
        return []
    return [str(number) for number in range(int(numbers.max()) + 1)]


def named(name: str, labels: Sequence[str], names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Like `numbered`, with a class name for each label."""
    classes, numbers = numbered(name, labels)
    pairs = dict(zip(numbers.tolist(), names, strict=True))
    for number, one in zip(numbers.tolist(), names, strict=True):
        if pairs[number] != one:
            raise MillError(
                f"{name} names the label {number} both {one!r} and {pairs[number]!r}: "
                "give a label one name"
            )
    return [pairs.get(i, one) for i, one in enumerate(classes)], numbers


def _looked_up(numbers: dict[str, int], labels: Sequence[str]) -> np.ndarray:
    return np.fromiter((numbers[label] for label in labels), np.int64, len(labels))
