"""The journal of an output: finished segments of its samples, as JSON lines, for resuming.

A line is appended once its segment is on disk; the first line identifies the output. A line that
a crash truncated is ignored. A lock on the file keeps other processes away from the same output;
it ends with the process.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from patchmill.loaders.files import writing
from patchmill.loaders.prepare.images import Image

_COUNTERS = ("traits", "changes", "masks")


class PreparedSample(NamedTuple):
    """A sample ready to be written."""

    id: int
    label: int | None
    image: Image
    checksum: int  # CRC-32 of image.data
    source_bytes: int
    path: str  # relative to the source's folder
    mask: bytes = b""  # a PNG; empty without a usable mask
    mask_state: str = ""  # of `masks.MaskLookup`; empty if the source has no masks


class BadSample(NamedTuple):
    """A skipped sample, in the format of the loaders' ledger."""

    id: int
    where: str
    reason: str


@dataclass
class Tally:
    """Counts over the samples of a segment; field names are keys of journals and dataset.json."""

    samples: int = 0
    bytes: int = 0  # encoded images as stored
    source_bytes: int = 0
    traits: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)  # by state
    bad: list[BadSample] = field(default_factory=list)

    def count(self, sample: PreparedSample) -> None:
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

    def to_json(self) -> dict[str, Any]:
        plain = asdict(self) | {"bad": [bad._asdict() for bad in self.bad]}
        return plain | {name: dict(sorted(getattr(self, name).items())) for name in _COUNTERS}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Tally:
        bad = [BadSample(**entry) for entry in plain["bad"]]
        counters = {name: Counter(plain[name]) for name in _COUNTERS}
        return cls(**{**plain, **counters, "bad": bad})


class Segment(NamedTuple):
    """A finished part of the output, which starts where the previous one stopped."""

    stop: int  # the first position of the order after it
    tally: Tally
    output: dict[str, Any]  # the state that the writer needs to resume after it


class JournalState(NamedTuple):
    """The content of a journal file."""

    identity: dict[str, Any]
    segments: list[Segment]
    done: bool
    size: int  # bytes up to the end of the last valid line


def total(segments: Iterable[Segment]) -> Tally:
    tally = Tally()
    for segment in segments:
        tally.add(segment.tally)
    return tally


def write_bad_list(path: Path, bad: Iterable[BadSample]) -> None:
    text = "".join(json.dumps(sample._asdict()) + "\n" for sample in bad)
    writing.write_atomic(path, text, writing.unique_name(path), durable=True)


def read(path: Path) -> JournalState | None:
    """Read a journal; None if there is no file, or its first line is invalid."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    identity, segments, done, size = None, [], False, 0
    for line in data.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                raise ValueError
            record = json.loads(line)
            if identity is None:
                identity = record["identity"]
            elif "done" in record:
                done = True
            else:
                tally = Tally.from_json(record["tally"])
                segments.append(Segment(record["stop"], tally, record["output"]))
        except (ValueError, KeyError, TypeError):
            break
        size += len(line)
    return None if identity is None else JournalState(identity, segments, done, size)


class Journal:
    """An open journal, locked by this process."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            writing.lock_output(self._file, path)
            state = read(path)
            self.segments = state.segments if state else []
            self.done = bool(state and state.done)
            self._truncate(state.size if state else 0)
            if state is None:
                self._append({"identity": dict(identity)})
        except BaseException:
            os.close(self._file)
            raise

    def append(self, segment: Segment) -> None:
        self.segments.append(segment)
        tally = segment.tally.to_json()
        self._append({"stop": segment.stop, "tally": tally, "output": segment.output})

    def mark_done(self) -> None:
        if not self.done:
            self._append({"done": True})
            self.done = True

    def truncate(self, count: int) -> None:
        """Keep only the first `count` segments: the data of the others is gone."""
        if count < len(self.segments):
            kept, self.segments, self.done = self.segments[:count], [], False
            first = self.path.read_bytes().splitlines(keepends=True)[0]
            self._truncate(len(first))
            for segment in kept:
                self.append(segment)

    def close(self) -> None:
        os.close(self._file)

    def _append(self, record: Mapping[str, Any]) -> None:
        data = json.dumps(record).encode() + b"\n"
        if os.write(self._file, data) < len(data):
            raise OSError(28, "No space left on device")
        os.fsync(self._file)

    def _truncate(self, size: int) -> None:
        os.ftruncate(self._file, size)
        os.lseek(self._file, size, os.SEEK_SET)
