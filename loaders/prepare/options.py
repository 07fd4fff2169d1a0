"""What is to be made, and what must not change between a run and the one that continues it."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import Source

SHARDS, BETON = "shards", "beton"
FORMATS = (SHARDS, BETON)

LAYOUT_VERSION = 1  # raised when the same options no longer give the same bytes
_LEAST_SHARD, _MOST_SIDE = 1_000_000, 65_535
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_FLAGS = {
    "format": "--format",
    "max_side": "--max-side",
    "quality": "--quality",
    "shard_size": "--shard-size",
    "seed": "--seed",
    "verify": "--verify",
    "world_size": "--world-size",
    "source": "another source, or a source that has changed",
    "samples": "another number of samples",
    "method": "--method",
    "estimator": "another version of the estimator, or other constants or weights",
    "masks": "other masks",
    "encoder": "another encoder",
}


@dataclass(frozen=True)
class Options:
    format: str
    max_side: int | None = None  # pixels; None keeps every file as it is
    quality: int = 90  # of the JPEGs made of what is larger
    shard_size: int = 256_000_000  # bytes
    seed: int | None = 0  # of the shuffle; None keeps the source's order
    verify: bool = False  # decode what is kept, too
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise MillError(f"the format must be {' or '.join(FORMATS)}, not {self.format!r}")
        if self.max_side is not None and not 1 <= self.max_side <= _MOST_SIDE:
            raise MillError(f"--max-side must be 1 to {_MOST_SIDE} pixels, not {self.max_side}")
        if not 1 <= self.quality <= 100:
            raise MillError(f"--quality must be 1 to 100, not {self.quality}")
        if self.shard_size < _LEAST_SHARD:
            raise MillError(f"--shard-size must be at least 1MB, not {self.shard_size} bytes")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise MillError(f"--seed must be 0 to 2**64 - 1, not {self.seed}")
        if not 0 <= self.rank < self.world_size:
            raise MillError(
                f"--rank must be 0 to {self.world_size - 1} for --world-size {self.world_size}, "
                f"not {self.rank}"
            )
        if self.format == BETON and self.world_size > 1:
            raise MillError(
                "a .beton is one file, which one process writes: prepare shards with "
                "--world-size, then make the .beton of them with --no-shuffle"
            )


def identity(source: Source, options: Options, masks: str = "") -> dict[str, Any]:
    """All that the bytes of the output depend on, as plain data; `masks` is their fingerprint."""
    shared = {
        "layout": LAYOUT_VERSION,
        "source": source.fingerprint,
        "samples": len(source),
        "format": options.format,
        "seed": options.seed,
        "verify": options.verify,
        "max_side": options.max_side,
    }
    if options.max_side is not None:
        shared |= {"quality": options.quality, "encoder": _encoder()}
    if options.format == SHARDS:
        shared |= {"shard_size": options.shard_size, "world_size": options.world_size}
    if masks:
        shared |= {"masks": masks}
    return shared


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs first, in the user's words; "" for equal identities."""
    for key in [*now, *before]:
        if before.get(key) != now.get(key):
            flag = _FLAGS.get(key, f"another version of patchmill ({key})")
            if flag.startswith("--"):
                return f"{flag} {_shown(before.get(key))}, not {_shown(now.get(key))}"
            return flag
    return ""


def parse_bytes(text: str) -> int:
    """`256MB` (decimal) and `256MiB` (binary) as bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?|)b?", text.strip().lower())
    if not found:
        raise MillError(f"cannot read the size {text!r}: write it as 256MB, 1GB or 512MiB")
    return round(float(found[1]) * _UNITS[found[2]])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def _encoder() -> str:
    names = ("simplejpeg", "pillow")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
