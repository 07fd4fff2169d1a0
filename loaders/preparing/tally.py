"""What went into a stretch of the output; tallies add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from patchmill.loaders.preparing.images import Image


class Ready(NamedTuple):
    """A sample that can be written."""

    id: int
    label: int | None
    image: Image
    checksum: int  # CRC-32 of image.data
    source_bytes: int
    path: str  # where it came from, as seen from the source's root


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
    bad: list[Bad] = field(default_factory=list)

    def count(self, sample: Ready) -> None:
        self.samples += 1
        self.bytes += len(sample.image.data)
        self.source_bytes += sample.source_bytes
        self.traits.update(sample.image.traits)
        if sample.image.change:
            self.changes[sample.image.change] += 1

    def add(self, other: Tally) -> None:
        self.samples += other.samples
        self.bytes += other.bytes
        self.source_bytes += other.source_bytes
        self.traits += other.traits
        self.changes += other.changes
        self.bad += other.bad

    def as_json(self) -> dict[str, Any]:
        plain = asdict(self) | {"bad": [bad._asdict() for bad in self.bad]}
        return plain | {
            "traits": dict(sorted(self.traits.items())),
            "changes": dict(sorted(self.changes.items())),
        }


def from_json(plain: dict[str, Any]) -> Tally:
    bad = [Bad(**entry) for entry in plain["bad"]]
    counters = {name: Counter(plain[name]) for name in ("traits", "changes")}
    return Tally(**(plain | counters | {"bad": bad}))
