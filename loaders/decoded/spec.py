"""Parse a loader's `cache=`: the place and the capacity of a cache of decoded images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError

FORMS = '"ram:32GB", "disk:FOLDER:200GB" or, on a GPU, "device:20GB"'

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)", re.IGNORECASE)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class CacheSpec:
    """A parsed `cache=`: "ram", "disk" or "device", the capacity in bytes, and the folder."""

    kind: str
    capacity: int
    folder: Path | None = None  # for "disk" only

    def __str__(self) -> str:
        return f"{self.place}:{size_text(self.capacity)}"

    @property
    def place(self) -> str:
        """All but the size."""
        return self.kind if self.folder is None else f"{self.kind}:{self.folder}"

    def resized(self, capacity: int) -> CacheSpec:
        return CacheSpec(self.kind, capacity, self.folder)


def parse(text: Any) -> CacheSpec:
    """Parse `"ram:32GB"`, `"disk:FOLDER:200GB"` or `"device:20GB"`; else a MillError."""
    if not isinstance(text, str):
        raise MillError(f"cache must be text such as {FORMS}, or None, not {text!r}")
    kind, _, rest = text.strip().partition(":")
    folder, colon, size = rest.rpartition(":")
    if kind not in ("ram", "disk", "device") or not size or (kind != "disk") == bool(colon):
        raise MillError(f"cache must be {FORMS}, not {text!r}")
    if kind == "disk" and not folder.strip():
        raise MillError(f"cache={text!r} names no folder: write {FORMS}")
    place = Path(folder).expanduser() if colon else None
    return CacheSpec(kind, parse_size(size, f"cache={text!r}"), place)


def parse_size(text: str, setting: str) -> int:
    """Bytes of a size such as 500MB, 1.5TB or 32GiB; errors refer to it as `setting`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise MillError(f"{setting}: {text!r} is not a size: write a number and a unit, as in 32GB")
    unit = match[2].lower()
    size = int(float(match[1]) * (1024 if "i" in unit else 1000) ** _UNITS[unit.rstrip("ib")])
    if not 0 < size < 2**60:
        raise MillError(f"{setting}: {text!r} is not a possible size of images")
    return size


def size_text(size: float) -> str:
    """Format a size for `parse_size`, as 32GB or 1.5MB."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.3g}TB"
