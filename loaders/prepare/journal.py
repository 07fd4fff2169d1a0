"""Which stretches of an output are finished: JSON lines, one appended when each is on the disk.

The first line says what is being made. A line that was cut off by a crash does not count. A lock
on the file keeps a second process away from the same output; it goes with its process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from patchmill.loaders.common import files
from patchmill.loaders.prepare import tally
from patchmill.loaders.prepare.tally import Tally


class Entry(NamedTuple):
    """A stretch: everything from where the last one stopped."""

    stop: int  # the first position of the order that is not in it
    tally: Tally
    output: dict[str, Any]  # what the writer has to know of it


class Found(NamedTuple):
    """A journal as it lies on the disk."""

    identity: dict[str, Any]
    entries: list[Entry]
    done: bool
    size: int  # bytes that can be used


def read(path: Path) -> Found | None:
    """None where there is no journal, or none that got as far as its first line."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    identity, entries, done, size = None, [], False, 0
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
                entry = Entry(record["stop"], tally.from_json(record["tally"]), record["output"])
                entries.append(entry)
        except (ValueError, KeyError, TypeError):
            break
        size += len(line)
    return None if identity is None else Found(identity, entries, done, size)


class Journal:
    """An open journal, which this process alone may write."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            files.hold(self._file, path)
            found = read(path)
            self.entries = found.entries if found else []
            self.done = bool(found and found.done)
            self._truncate(found.size if found else 0)
            if found is None:
                self._append({"identity": dict(identity)})
        except BaseException:
            os.close(self._file)
            raise

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)
        plain = {"stop": entry.stop, "tally": entry.tally.as_json(), "output": entry.output}
        self._append(plain)

    def finish(self) -> None:
        if not self.done:
            self._append({"done": True})
            self.done = True

    def keep(self, count: int) -> None:
        """Forget all but the first entries: the others' data has gone."""
        if count < len(self.entries):
            kept, self.entries, self.done = self.entries[:count], [], False
            first = self.path.read_bytes().splitlines(keepends=True)[0]
            self._truncate(len(first))
            for entry in kept:
                self.append(entry)

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
