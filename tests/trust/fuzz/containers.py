"""Mutated betons, mask files, zips, Parquet files, lists and stores: opened and read entirely."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from patchmill.loaders.copypaste import mask_file
from patchmill.loaders.copypaste.mask_file import MaskFile
from patchmill.loaders.decode.bad_image import BadImage
from patchmill.loaders.decoded import opening
from patchmill.loaders.prepare import inspect_masks
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.archives.lmdb_file import Lmdb
from patchmill.loaders.sources.archives.zip_file import Zip
from patchmill.loaders.sources.beton.source import Beton
from patchmill.loaders.sources.beton.writer import BetonWriter
from patchmill.loaders.sources.lists.path_list import open_list
from trust.check import Check, Outcome, Task
from trust.fuzz.opening import cache_at, fuzz, read_all

_NOWHERE = "/dev/null/cache"  # no cache: indexes are built in memory
_LONG_AGO = 1_600_000_000
_GAP = re.compile(rb"\0{10000,}")


def fuzz_betons(task: Task) -> Outcome:
    """Betons of JPEGs, raw images and masks, with and without an annex of checksums."""

    def open_beton(path: Path) -> str:
        source = Beton(path)
        end = read_all(source)
        _ = source.classes, source.mask_places()
        decoded = source.decoded_images()
        for id in range(min(len(source), 50)):
            with contextlib.suppress(OSError, BadImage):
                source.mask(id)
            if decoded is not None and (image := decoded.image(id)) is not None:
                int(image.sum())
        return end

    betons = [_Beton(task.folder, masks) for masks in (False, True)]
    seeds = [beton.data for beton in betons]

    def write(data: bytes, path: Path) -> None:
        betons[0].write(data, path)

    return _fuzz_files(task, seeds, open_beton, write=write)


def fuzz_masks(task: Task) -> Outcome:
    """Mask files; a mask reads as written, or is an error."""
    planes = [np.full((9, 7 + i), 17 * i, np.uint8) for i in range(5)]
    rows = [mask_file.mask_row(plane, 0.5, 0.5, "why" * (i == 3)) for i, plane in enumerate(planes)]
    rows.append(mask_file.missing_row("no image"))
    meta = {
        "source": "x",
        "samples": 6,
        "estimator": {"method": "gs", "version": 1},
        "made_by": "this",
    }
    seed = task.folder / "seed.masks"
    mask_file.write_mask_file(seed, lambda: rows, 6, meta | {"max_side": 9})

    def open_masks(path: Path) -> str:
        file, bad = MaskFile(path), 0
        for id in range(len(file)):
            try:
                mask = file.mask(id)
            except (OSError, BadImage):
                bad += 1
                continue
            expected = planes[id] if id < 5 else None
            assert np.array_equal(mask, expected) if mask is not None else expected is None
            assert file.why(id) == rows[id].why
        file.mask_places()
        problems = inspect_masks.inspect_file(path)[1]
        assert bool(problems) == bool(bad), "inspect and reading differ"
        return "ledger" if bad else "whole"

    return _fuzz_files(task, [seed.read_bytes()], open_masks)


def fuzz_zips(task: Task) -> Outcome:
    return _fuzz_files(task, zips(), lambda path: read_all(Zip(path)), ".zip")


def zips() -> list[bytes]:
    """A zip with stored members, and one with deflated members."""
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for number in range(5):
                archive.writestr(f"class{number % 2}/{number}.jpg", jpeg(number))
        seeds.append(stream.getvalue())
    return seeds


def fuzz_lmdbs(task: Task) -> Outcome:
    """LMDB databases with a two-level tree, and values in overflow pages."""
    import lmdb

    path = task.folder / "seed.lmdb"
    with lmdb.open(str(path), map_size=1 << 20, subdir=False) as environment:
        with environment.begin(write=True) as transaction:
            for number in range(40):
                room = bytes(3000 * (number % 9 == 0))
                transaction.put(b"%d/%0200d.jpg" % (number % 2, number), jpeg(1)[:200] + room)
    return _fuzz_files(task, [path.read_bytes()], lambda path: read_all(Lmdb(path)), ".lmdb")


def fuzz_parquets(task: Task) -> Outcome:
    """Parquet files of several encodings, of images and of paths."""
    return _fuzz_files(task, parquets(), lambda path: read_all(open_source(path)), ".parquet")


def parquets() -> list[bytes]:
    """Valid Parquet files of several encodings: four of images, and one of paths."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "image": [{"bytes": jpeg(number), "path": f"{number}.jpg"} for number in range(5)],
            "label": [0, 1, 2, 0, 1],
        }
    )
    paths = pyarrow.table({"path": [f"{number}.jpg" for number in range(6)], "label": ["a"] * 6})
    seeds = []
    for content, options in (
        (table, {"compression": "none"}),
        (table, {"compression": "snappy"}),
        (table, {"compression": "gzip", "use_dictionary": False}),
        (table, {"compression": "none", "data_page_version": "2.0", "row_group_size": 2}),
        (paths, {"compression": "snappy"}),
    ):
        stream = io.BytesIO()
        parquet.write_table(content, stream, **options)
        seeds.append(stream.getvalue())
    return seeds


def fuzz_lists(task: Task) -> Outcome:
    rows = [(f"{number}.jpg", ("cat", "dog")[number % 2]) for number in range(6)]
    for name, _ in rows:
        (task.folder / name).write_bytes(b"an image")
    texts = {}
    for ending, separator in ((".csv", ","), (".tsv", "\t")):
        text = io.StringIO()
        csv.writer(text, delimiter=separator).writerows([("path", "label"), *rows])
        texts[ending] = [text.getvalue().encode()]
    objects = "\n".join(json.dumps({"file_name": name, "label": label}) for name, label in rows)
    texts[".jsonl"] = [objects.encode()]
    outcome = Outcome()
    for number, (ending, seeds) in enumerate(texts.items()):
        part = Task(task.name, -(-task.tries // 3), task.folder, task.seed + number, task.note)
        _fuzz_files(part, seeds, lambda path: read_all(open_list(path)), ending, outcome)
    return outcome


def fuzz_stores(task: Task) -> Outcome:
    """Stores of decoded images; an image reads as stored, or is missing."""
    store = FilledStore(task.folder)

    def reopen(data: bytes, unused: Path) -> str:
        found = store.reopened(data)
        for id, image in enumerate(found):
            assert image is None or np.array_equal(image, store.images[id]), f"image {id} differs"
        return "whole" if all(image is not None for image in found) else "made again"

    outcome = Outcome()
    fuzz(task, outcome, [store.data], reopen)
    return outcome


def _fuzz_files(
    task: Task,
    seeds: list[bytes],
    open_file: Callable[[Path], str],
    ending: str = "",
    outcome: Outcome | None = None,
    write: Callable[[bytes, Path], object] = lambda data, path: path.write_bytes(data),
) -> Outcome:
    """`fuzz` with each mutated input in its own file, with this suffix."""
    outcome = outcome or Outcome()

    def open_mutated(data: bytes, unused: Path) -> str:
        path = unused.with_suffix(ending)
        write(data, path)
        try:
            return open_file(path)
        finally:
            path.unlink()

    with cache_at(_NOWHERE):
        fuzz(task, outcome, seeds, open_mutated)
    return outcome


def jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((10, 12, 3), 40 * number, np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def _png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 9), 40 * number, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


class _Beton:
    """A small beton with every third image raw, without the megabytes of empty pages."""

    def __init__(self, folder: Path, masks: bool) -> None:
        path = folder / "made.beton"
        with BetonWriter(path, 6, ["a", "b"], masks=masks) as writer:
            for number in range(6):
                data = jpeg(number) if number % 3 else _raw(number)
                writer.add(data, number % 2, _png(number) if masks and number % 2 else b"")
        data = path.read_bytes()
        path.unlink()
        gaps = [found.span() for found in _GAP.finditer(data)]
        ends = [0, *(place for gap in gaps for place in gap), len(data)]
        self._parts = list(zip(ends[::2], ends[1::2], strict=True))
        self.data = b"".join(data[start:end] for start, end in self._parts)

    def write(self, data: bytes, path: Path) -> None:
        """Write a beton whose parts are concatenated in `data`."""
        with open(path, "wb") as file:
            for start, end in self._parts[:-1]:
                file.seek(start)
                file.write(data[: end - start])
                data = data[end - start :]
            file.seek(self._parts[-1][0])
            file.write(data)


class FilledStore:
    """A store with four decoded images; `data` is its file."""

    def __init__(self, folder: Path) -> None:
        beton = _Beton(folder, False)
        beton.write(beton.data, folder / "seed.beton")
        os.utime(folder / "seed.beton", (_LONG_AGO, _LONG_AGO))  # else it could change unnoticed
        self._source = Beton(folder / "seed.beton")
        self._wanted = f"disk:{folder / 'store'}:200KB"
        self.images = [np.full((6, 5 + i, 3), 40 * i, np.uint8) for i in range(4)]
        store = self._open()
        for id, image in enumerate(self.images):
            store.offer(id, image, store.read(id)[1])
        self._path: Path = store.path
        pairs = enumerate(self.images)
        assert all(np.array_equal(store.image(id), image) for id, image in pairs)
        del store
        self.data = self._path.read_bytes().rstrip(b"\0")

    def reopened(self, data: bytes) -> list[np.ndarray | None]:
        """Images in a store with these bytes."""
        self._path.unlink(missing_ok=True)
        self._path.write_bytes(data)
        store = self._open()
        return [store.image(id) for id in range(len(self.images))]

    def _open(self) -> Any:
        store = opening.open_store(self._wanted, self._source)
        assert store is not None
        return store


def _raw(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((7, 5, 3), 40 * number, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


CHECKS = (
    Check("fuzz-beton", "mutated betons: opened and read", fuzz_betons, 40, 10_000, 50_000, 20),
    Check("fuzz-masks", "mutated mask files: read, inspected", fuzz_masks, 40, 10_000, 50_000, 10),
    Check(
        "fuzz-lmdb", "mutated LMDB databases: listed and read",
        fuzz_lmdbs, 40, 8000, 50_000, 20, needs=("lmdb",),
    ),
    Check("fuzz-zip", "mutated zips: listed and read", fuzz_zips, 40, 10_000, 50_000, 15),
    Check(
        "fuzz-parquet", "mutated Parquet files: indexed, read",
        fuzz_parquets, 40, 5000, 50_000, 25, needs=("pyarrow",),
    ),
    Check("fuzz-list", "mutated lists of paths: opened, read", fuzz_lists, 40, 10_000, 50_000, 10),
    Check("fuzz-store", "mutated decoded caches: opened, read", fuzz_stores, 20, 5000, 50_000, 25),
)  # fmt: skip
