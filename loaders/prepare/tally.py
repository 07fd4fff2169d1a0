"""What went into a stretch of the output; tallies add up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from patchmill.loaders.common.files import write_atomic
from patchmill.loaders.prepare.images import Image

_COUNTERS = ("traits", "changes", "masks")


class Ready(NamedTuple):
    """A sample that can be written."""

    id: int
    label: int | None
    image: Image
    checksum: int  # CRC-32 of image.data
    source_bytes: int
    path: str  # where it came from, as seen from the source's root
    mask: bytes = b""  # a PNG; nothing where there is none, or none of use
    mask_state: str = ""  # as in `masks.MaskLookup`; nothing where the source has no masks


class Bad(NamedTuple):
    """A sample that is left out; its form is that of the loaders' ledger."""

    id: int
    where: str
    reason: str


@dataclass
class Tally:
    samples: int = 0
    bytes: int = 0  # encoded images as stored
    source_bytes: int = 0
    traits: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)  # by state
    bad: list[Bad] = field(default_factory=list)

    def count(self, sample: Ready) -> None:
        self.samples += 1
        self.bytes += len(sample.image.data)
        self.source_bytes += sample.source_bytes
        self.traits.update(sample.image.traits)
        if sample.image.change:
            self.changes[sample.image.change] += 1
        if sample.mask_state:
            self.masks[sample.mask_state] += 1

    def add(self, other: Tally) -> None:
        self.samples += other.samples
        self.bytes += other.bytes
        self.source_bytes += other.source_bytes
        self.traits += other.traits
        self.changes += other.changes
        self.masks += other.masks
        self.bad += other.bad

    def as_json(self) -> dict[str, Any]:
        plain = asdict(self) | {"bad": [bad._asdict() for bad in self.bad]}
        return plain | {name: dict(sorted(getattr(self, name).items())) for name in _COUNTERS}


def from_json(plain: dict[str, Any]) -> Tally:
    bad = [Bad(**entry) for entry in plain["bad"]]
    counters = {name: Counter(plain[name]) for name in _COUNTERS}
    return Tally(**(plain | counters | {"bad": bad}))


def write_ledger(path: Path, bad: Iterable[Bad], rank: int) -> None:
    text = "".join(json.dumps(entry._asdict()) + "\n" for entry in bad)
    write_atomic(path, text, f".{path.name}.{rank}.part", durable=True)
