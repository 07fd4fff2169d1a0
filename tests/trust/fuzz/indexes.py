"""Mutated tars, shard indexes and set indexes: no wrong sample, and only one-sentence errors."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

from patchmill.loaders.files import columns
from patchmill.loaders.prepare import inspect_data
from patchmill.loaders.sources.shards import index as shard_index
from patchmill.loaders.sources.shards.source import Shards
from trust.check import Check, Outcome, Task
from trust.fuzz import resealed
from trust.fuzz.opening import Sample, cache_at, fuzz, read_all

LONG_AGO = 1_600_000_000
NOWHERE = "/dev/null/cache"  # no cache: indexes are built in memory


def fuzz_tars(task: Task) -> Outcome:
    """Tars of all dialects, without an index."""
    outcome = Outcome()

    def open_tar(data: bytes, path: Path) -> str:
        (tar := path.with_suffix(".tar")).write_bytes(data)
        try:
            return read_all(Shards(str(tar)))
        finally:
            tar.unlink()

    with cache_at(NOWHERE):
        fuzz(task, outcome, _tars(), open_tar, fit=resealed.tar)
    return outcome


def fuzz_indexes(task: Task) -> Outcome:
    """Indexes next to a valid tar, opened and inspected."""
    outcome, folder = Outcome(), task.folder / "shards"
    folder.mkdir()
    tar, expected = written(folder)
    index = Path(shard_index.index_path(tar))
    sound = index.read_bytes()

    def open_index(data: bytes, path: Path) -> str:
        index.write_bytes(data)
        end = read_all(Shards(str(tar)), expected)
        problems = inspect_data.inspect(folder)[1]
        assert problems or _same_columns(data, sound, path), "inspect finds nothing"
        return "found" if problems else end

    with cache_at(NOWHERE):
        fuzz(task, outcome, [sound], open_index)
    return outcome


def fuzz_set_indexes(task: Task) -> Outcome:
    """The cached index of a set, which is rebuilt; half of the tries read it piecewise."""
    outcome, folder = Outcome(), task.folder / "shards"
    folder.mkdir()
    tar, expected = written(folder)
    with cache_at(task.folder / "cache"):
        Shards(str(tar))
        (cached,) = (task.folder / "cache" / "shards").glob("*.set")
        sound, large = cached.read_bytes(), columns._LARGE_BYTES

        def open_set(data: bytes, path: Path) -> str:
            cached.write_bytes(data)
            columns._LARGE_BYTES = random.Random(path.name).choice((0, large))
            try:
                end = read_all(Shards(str(tar)), expected)
                assert end == "whole", "samples of a valid tar are lost due to its cached index"
                return end
            finally:
                columns._LARGE_BYTES = large

        fuzz(task, outcome, [sound], open_set)
    return outcome


def _same_columns(data: bytes, sound: bytes, path: Path) -> bool:
    """True if only bytes between the columns differ, which are never read."""
    found = []
    for content in (sound, data):
        path.write_bytes(content)
        read = columns.read(path, shard_index.KIND)
        found.append((read.meta, {name: column.tolist() for name, column in read.columns.items()}))
    path.unlink()
    return found[0] == found[1]


def _samples() -> dict[str, bytes]:
    files = {}
    for number in range(5):
        image = b"\xff\xd8\xff" + b"image %d " % number * 20
        files |= {f"{number}.jpg": image, f"{number}.cls": b"%d" % (number % 3)}
    return files | {"4.mask.png": b"a mask" * 9}


def _tar(files: dict[str, bytes], dialect: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=dialect) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue().rstrip(b"\0") + bytes(1536)


def _tars() -> list[bytes]:
    named = {f"{'long' * 40}/{name}": content for name, content in _samples().items()}
    odd = {f"ä/{name}": content for name, content in _samples().items()}
    inner = {name: content for name, content in _samples().items() if name.endswith("jpg")}
    return [
        _tar(_samples(), tarfile.USTAR_FORMAT),
        _tar(named, tarfile.GNU_FORMAT),
        _tar(named | odd, tarfile.PAX_FORMAT),
        _tar({"n01.tar": _tar(inner), "n02.tar": _tar(inner)}),
        _tar({f"{name}.json": b'{"label": 3}' for name in "ab"} | {"a.jpg": b"a", "b.jpg": b"b"}),
    ]


def written(folder: Path) -> tuple[Path, list[Sample]]:
    """Write a shard with its index; return its path and samples."""
    tar = folder / "data-000000.tar"
    tar.write_bytes(_tar(_samples()))
    os.utime(tar, (LONG_AGO, LONG_AGO))
    shard_index.write_index(tar, shard_index.scan_shard(tar, checksums=True))
    files = _samples()
    samples = [(files[f"{n}.jpg"], int(files[f"{n}.cls"])) for n in range(5)]
    return tar, samples


CHECKS = (
    Check("fuzz-tar", "mutated tars: listed and read", fuzz_tars, 40, 10_000, 50_000, 20),
    Check("fuzz-index", "mutated indexes: opened, inspected", fuzz_indexes, 30, 8000, 50_000, 40),
    Check("fuzz-set-index", "mutated set indexes: opened", fuzz_set_indexes, 30, 5000, 50_000, 40),
)
