"""Tars for the tests of shards, written by Python's tarfile and by webdataset itself."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.sources.shards import index as shard_index
from patchmill.loaders.sources.shards.source import Shards

HOURS_AGO = 1_600_000_000
COUNT, EACH = 45, 20

Files = Iterable[tuple[str, bytes]]


def write_tar(path: Path, files: Files, **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as file:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return backdate(path)


def backdate(path: Path) -> Path:
    """Set the modification time to long ago, so that the file does not count as just changed."""
    os.utime(path, (HOURS_AGO, HOURS_AGO))
    return path


def image(number: int) -> bytes:
    return b"image %d " % number * (number % 7 + 1)


def write_samples(path: Path, numbers: Iterable[int], labels: bool = True, **extra: Any) -> Path:
    """Write samples by webdataset: `image(n)`, labelled n % 10."""
    import webdataset

    with webdataset.TarWriter(str(path), encoder=False, mtime=0) as writer:
        for n in numbers:
            sample: dict[str, Any] = {"__key__": f"photos/{n:06d}", "jpg": image(n)}
            if labels:
                sample["cls"] = b"%d" % (n % 10)
            writer.write(sample | extra)
    return backdate(path)


def three_shards(folder: Path) -> Path:
    """Three shards with 20, 20 and 5 samples."""
    folder.mkdir()
    for number in range(3):
        numbers = range(number * EACH, min(number * EACH + EACH, COUNT))
        write_samples(folder / f"data-{number:06d}.tar", numbers)
    return folder


def add_indexes(folder: Path) -> None:
    for path in folder.glob("*.tar"):
        shard_index.write_index(path, shard_index.scan_shard(path, checksums=True))


def check_samples(source: Shards) -> None:
    assert len(source) == COUNT
    assert [source.read(i) for i in range(COUNT)] == [image(i) for i in range(COUNT)]
    assert source.labels is not None and source.labels.dtype == np.int64
    assert source.labels.tolist() == [i % 10 for i in range(COUNT)]
    assert source.classes == [str(i) for i in range(10)]


def flip_bit(shards: Path, source: Shards, index: int) -> None:
    """Corrupt a sample, as a disk or a network might."""
    shard, offset, _ = source.locate(index)
    path = sorted(shards.glob("*.tar"))[shard]
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"I")
    backdate(path)
