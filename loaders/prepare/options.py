"""Options of a preparation, and the identity of its output, which resumed runs must match."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.bad_image import MAX_PIXELS, MOST_PIXELS
from patchmill.loaders.sources import Source

SHARDS, BETON = "shards", "beton"
FORMATS = (SHARDS, BETON)

LAYOUT_VERSION = 1  # incremented when equal options no longer give equal bytes
_MIN_SHARD_BYTES, _MAX_SIDE = 1_000_000, 65_535
_MIN_MASK_SIDE, _MAX_MASK_SIDE = 16, 4096
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_CHANGED = {  # key of an identity -> option, or description for the user
    "format": "--format",
    "max_side": "--max-side",
    "max_pixels": "--max-pixels",
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

_DEFAULTS = {"max_pixels": MAX_PIXELS}  # of keys that an identity may omit


@dataclass(frozen=True)
class Options:
    """Options of `patchmill prepare` for shards or a .beton."""

    format: str
    max_side: int | None = None  # pixels; None keeps all files unchanged
    quality: int = 90  # of the JPEGs that replace larger images
    shard_size: int = 256_000_000  # bytes
    seed: int | None = 0  # of the shuffle; None keeps the source's order
    verify: bool = False  # decode unchanged files, too
    rank: int = 0
    world_size: int = 1
    max_pixels: int = MAX_PIXELS  # of an image; a larger one is skipped

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise MillError(f"the format must be {' or '.join(FORMATS)}, not {self.format!r}")
        if self.max_side is not None and not 1 <= self.max_side <= _MAX_SIDE:
            raise MillError(f"--max-side must be 1 to {_MAX_SIDE} pixels, not {self.max_side}")
        check_max_pixels(self.max_pixels)
        if not 1 <= self.quality <= 100:
            raise MillError(f"--quality must be 1 to 100, not {self.quality}")
        if self.shard_size < _MIN_SHARD_BYTES:
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
                "a .beton is one file, written by one process: prepare shards with "
                "--world-size, then make the .beton from them with --no-shuffle"
            )


@dataclass(frozen=True)
class MaskOptions:
    """Options of `patchmill masks`."""

    method: str = "rbd"
    max_side: int = 256  # pixels of a mask
    rank: int = 0
    world_size: int = 1
    max_pixels: int = MAX_PIXELS  # of an image; a larger one has no mask

    def __post_init__(self) -> None:
        if not _MIN_MASK_SIDE <= self.max_side <= _MAX_MASK_SIDE:
            raise MillError(
                f"--max-side must be {_MIN_MASK_SIDE} to {_MAX_MASK_SIDE} pixels, not "
                f"{self.max_side}"
            )
        check_max_pixels(self.max_pixels)
        if not 0 <= self.rank < self.world_size:
            raise MillError(
                f"--rank must be 0 to {self.world_size - 1} for --world-size {self.world_size}, "
                f"not {self.rank}"
            )

    def share(self, count: int) -> range:
        """This rank's samples."""
        bounds = (count * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return range(*bounds)


def identity_of(source: Source, options: Options, masks: str = "") -> dict[str, Any]:
    """Everything that the output's bytes depend on, as JSON; `masks` is their fingerprint."""
    identity = {
        "layout": LAYOUT_VERSION,
        "source": source.fingerprint,
        "samples": len(source),
        "format": options.format,
        "seed": options.seed,
        "verify": options.verify,
        "max_side": options.max_side,
    }
    if options.max_side is not None:
        identity |= {"quality": options.quality, "encoder": _encoder_versions()}
    if options.format == SHARDS:
        identity |= {"shard_size": options.shard_size, "world_size": options.world_size}
    if masks:
        identity |= {"masks": masks}
    return identity | identity_of_max_pixels(options.max_pixels)


def identity_of_max_pixels(max_pixels: int) -> dict[str, int]:
    """The part of an identity that sets which images are too large; empty for the default."""
    return {} if max_pixels == MAX_PIXELS else {"max_pixels": max_pixels}


def check_max_pixels(max_pixels: int) -> None:
    if not 1 <= max_pixels <= MOST_PIXELS:
        raise MillError(f"--max-pixels must be 1 to {MOST_PIXELS}, not {max_pixels}")


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe the first difference between two identities; "" if they are equal."""
    for key in [*now, *before]:
        earlier, later = (side.get(key, _DEFAULTS.get(key)) for side in (before, now))
        if earlier != later:
            changed = _CHANGED.get(key, f"another version of patchmill ({key})")
            if changed.startswith("--"):
                return f"{changed} {_format(earlier)}, not {_format(later)}"
            return changed
    return ""


def parse_bytes(text: str) -> int:
    """Parse `256MB` (decimal) or `256MiB` (binary)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?|)b?", text.strip().lower())
    if not match:
        raise MillError(f"cannot read the size {text!r}: write it as 256MB, 1GB or 512MiB")
    return round(float(match[1]) * _UNITS[match[2]])


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def _encoder_versions() -> str:
    names = ("simplejpeg", "pillow")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
