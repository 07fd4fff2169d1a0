"""Checks of a COCO file's contents before they are used: compiled code trusts masks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchmill.loaders.common.printed import brief

NEEDED = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
_LONGEST_SIDE = 2**16


def problems(content: Any) -> Iterator[str]:
    """Describe each section of a file that does not follow COCO's format."""
    for section, keys in NEEDED.items():
        entries = content.get(section) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            yield f"it has no list {section!r}"
            continue
        for entry in entries:
            missing = [k for k in keys if not isinstance(entry, dict) or k not in entry]
            if missing:
                yield f"one of its {section} has no {missing[0]!r}"
                break
            if problem := next(_values(section, entry), None):
                yield f"one of its {section} has {problem}"
                break


def _values(section: str, entry: dict[str, Any]) -> Iterator[str]:
    for key in ("id", "image_id", "category_id"):
        if key in NEEDED[section] and not _is_id(entry[key]):
            yield f"the {key} {brief(entry[key])}, which is neither a number nor text"
    for key in ("file_name", "name"):
        if key in NEEDED[section] and not _is_name(entry[key]):
            yield f"the {key} {brief(entry[key])}, which is not a name"


def is_side(value: Any) -> bool:
    """True for a valid width or height of an image, in pixels."""
    return is_number(value) and 1 <= value <= _LONGEST_SIDE and value % 1 == 0


def is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 2**53  # false for NaN


def is_mask(shape: Any, width: int, height: int) -> bool:
    """True for polygons near an image, run lengths that add up to its size, and encoded ones."""
    if isinstance(shape, list):
        return all(_is_polygon(corners, width, height) for corners in shape)
    if not isinstance(shape, dict) or shape.get("size") != [height, width]:
        return False
    counts = shape.get("counts")
    return _fill(counts, width * height) if isinstance(counts, list) else isinstance(counts, str)


def runs_fit(shape: dict[str, Any], width: int, height: int) -> bool:
    """True if an RLE, given as numbers or text, fills its image exactly."""
    counts = shape["counts"]
    return _fill(counts if isinstance(counts, list) else _runs(counts), width * height)


def lies_in(folder: Path, name: str) -> bool:
    """True if a file name, relative or absolute, is below a folder; links are not resolved."""
    top = os.path.abspath(folder)
    return os.path.abspath(os.path.join(top, name)).startswith(os.path.join(top, ""))


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _is_polygon(corners: Any, width: int, height: int) -> bool:
    """True for an even number of coordinates, no farther outside than the image's size."""
    return (
        isinstance(corners, list)
        and len(corners) % 2 == 0
        and all(is_number(x) and -width <= x <= 2 * width for x in corners[::2])
        and all(is_number(y) and -height <= y <= 2 * height for y in corners[1::2])
    )


def _fill(counts: list[Any] | None, pixels: int) -> bool:
    return (
        counts is not None
        and all(isinstance(run, int) and 0 <= run <= pixels for run in counts)
        and sum(counts) == pixels
    )


def _runs(text: str | bytes) -> list[int] | None:
    """Decode COCO's RLE text: six bits per character, differences from the third run on."""
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii", "replace") if isinstance(text, str) else text:
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return None if shift else runs
