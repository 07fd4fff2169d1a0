"""Tars for the tests of shards, written by Python's tarfile and by webdataset itself."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HOURS_AGO = 1_600_000_000

Files = Iterable[tuple[str, bytes]]


def write_tar(path: Path, files: Files, **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as file:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return settle(path)


def settle(path: Path) -> Path:
    """Make the file look unchanged for hours."""
    os.utime(path, (HOURS_AGO, HOURS_AGO))
    return path


def image(number: int) -> bytes:
    return b"image %d " % number * (number % 7 + 1)


def write_samples(path: Path, numbers: Iterable[int], labels: bool = True, **extra: Any) -> Path:
    """Samples as webdataset writes them: `image(n)` labelled n % 10 under the key of n."""
    import webdataset

    with webdataset.TarWriter(str(path), encoder=False, mtime=0) as writer:
        for n in numbers:
            sample: dict[str, Any] = {"__key__": f"photos/{n:06d}", "jpg": image(n)}
            if labels:
                sample["cls"] = b"%d" % (n % 10)
            writer.write(sample | extra)
    return settle(path)
