"""Files of the project's own formats with changed contents under matching checksums.

An attacker can choose samples, labels and masks with them, and nothing else: reading gives data of
a valid shape, or a one-sentence error. A cache is rebuilt.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import mask_file, masks
from patchmill.loaders.copypaste.mask_file import MaskFile
from patchmill.loaders.prepare import inspect_data, inspect_masks
from patchmill.loaders.sources import folder, open_source
from patchmill.loaders.sources.archives import zip_file
from patchmill.loaders.sources.archives.zip_file import Zip
from patchmill.loaders.sources.folder import Folder
from patchmill.loaders.sources.parquet import index as parquet_index
from patchmill.loaders.sources.parquet.source import Parquet
from patchmill.loaders.sources.scenes import source as scenes
from patchmill.loaders.sources.scenes.source import Scenes
from patchmill.loaders.sources.shards import index as shard_index
from patchmill.loaders.sources.shards import set_index
from patchmill.loaders.sources.shards.source import Shards
from patchmill.training.runtime import checkpoint
from trust.check import Check, Outcome, Task
from trust.fuzz import checkpoints, containers, indexes, resealed
from trust.fuzz.opening import cache_at, fuzz, read_all


def fuzz_indexes(task: Task) -> Outcome:
    """Indexes next to a valid tar, opened and inspected."""
    (shards := task.folder / "shards").mkdir()
    tar, _ = indexes.written(shards)
    index = Path(shard_index.index_path(tar))

    def open_index(data: bytes, path: Path) -> str:
        index.write_bytes(data)
        end = read_all(Shards(str(tar)))
        inspect_data.inspect(shards)
        return end

    with cache_at(indexes.NOWHERE):
        return _fuzz(task, [index], shard_index.KIND, open_index)


def fuzz_masks(task: Task) -> Outcome:
    """Mask files, opened as in training, and inspected."""
    source = open_source(_folder(task.folder / "images"))
    planes = [np.tile(np.uint8([0, 255]), (9, 7 + i)) for i in range(4)]
    rows = [mask_file.mask_row(plane, 0.5, 0.5, "why" * (i == 3)) for i, plane in enumerate(planes)]
    rows.append(mask_file.missing_row("no image"))
    meta = {"source": source.fingerprint, "samples": 5, "max_side": 9, "made_by": "this"}
    estimator = {"method": "gs", "version": 1, "constants": {"a": 1}, "fingerprint": "0" * 16}
    path = task.folder / "seed.masks"
    mask_file.write_mask_file(path, lambda: rows, 5, meta | {"estimator": estimator})

    def open_masks(data: bytes, unused: Path) -> str:
        path.write_bytes(data)
        opened = masks.open_mask_file(path, source, random.Random(data).choice((None, "gs")))
        assert len(source) == len(MaskFile(path)), "masks for a different number of images"
        states = set()
        for id in range(5):
            found = opened.lookup(id)
            share = opened.foreground(id)
            assert share is None or 0 <= share <= 1, f"a share of {share}"
            assert found.plane is None or found.plane.dtype == np.uint8
            states.add(found.state)
        places = opened.places()
        assert places is not None and len(places.places) == 5
        text, _ = inspect_masks.inspect_file(path)
        assert "\x1b" not in text and text.count("\n") < 6, "a file's text controls the terminal"
        return ", ".join(sorted(states))

    return _fuzz(task, [path], mask_file.KIND, open_masks)


def fuzz_caches(task: Task) -> Outcome:
    """Cached listings of all kinds of data, and painted scenes; rebuilt if they differ."""
    (shards := task.folder / "shards").mkdir()
    tar, _ = indexes.written(shards)
    Path(shard_index.index_path(tar)).unlink()
    images = _folder(task.folder / "images")
    (packed := task.folder / "images.zip").write_bytes(containers.zips()[0])
    for path in (packed, *images.rglob("*"), images):
        os.utime(path, (indexes.LONG_AGO, indexes.LONG_AGO))
    outcome = Outcome()
    openers: list[tuple[str, str, Callable[[], Any]]] = [
        ("shards/*.set", set_index.KIND, lambda: Shards(str(tar))),
        ("shards/*.shard", set_index.SCANNED, lambda: Shards(str(tar))),
        ("folders/*.index", folder.KIND, lambda: Folder(images)),
        ("archives/*.index", zip_file.KIND, lambda: Zip(packed)),
        ("scenes/*/*.scenes", scenes.KIND, lambda: Scenes(4, size=24)),
    ]
    if importlib.util.find_spec("pyarrow"):
        tables = [task.folder / f"{number}.parquet" for number in range(4)]
        for path, data in zip(tables, containers.parquets(), strict=False):
            path.write_bytes(data)
            os.utime(path, (indexes.LONG_AGO, indexes.LONG_AGO))
        openers.append(("parquet/*.index", parquet_index.KIND, lambda: Parquet(tables)))
    with cache_at(task.folder / "cache"):
        for number, (pattern, kind, opened) in enumerate(openers):
            opened()
            (cached,) = (task.folder / "cache").glob(pattern)

            def reopen(data: bytes, unused: Path, *, cached: Path = cached, opened=opened) -> str:
                if cached.suffix == ".shard":
                    for other in cached.parent.glob("*.set"):
                        other.unlink()
                cached.write_bytes(data)
                source = opened()
                if isinstance(source, Scenes):
                    for id in range(len(source)):
                        with contextlib.suppress(OSError):
                            assert source.segmentation(id).max(initial=0) <= len(source.classes)
                            assert len(source.objects(id)) <= 3
                return read_all(source)

            part = Task(
                task.name,
                -(-task.tries // len(openers)),
                task.folder,
                task.seed + number,
                task.note,
            )
            _fuzz(part, [cached], kind, reopen, outcome)
    return outcome


def fuzz_stores(task: Task) -> Outcome:
    """Stores of decoded images with changed records; reading still gives an image."""
    store = containers.FilledStore(task.folder)

    def reopen(data: bytes, unused: Path) -> str:
        found = store.reopened(data)
        for image in found:
            assert image is None or (image.ndim == 3 and image.size > 0)
            assert image is None or int(image.max()) < 256
        return "whole" if all(image is not None for image in found) else "made again"

    def change(data: bytes, draw: random.Random, other: bytes) -> bytes:
        return resealed.store(data, draw, len(store.images))

    outcome = Outcome()
    fuzz(task, outcome, [store.data], reopen, change)
    return outcome


def fuzz_checkpoints(task: Task) -> Outcome:
    """Checkpoints with changed contents: loaded if structurally valid, else the previous one is."""
    logging.getLogger("patchmill").setLevel(logging.ERROR)
    last = checkpoints.written(task.folder)

    def resume(data: bytes, unused: Path) -> str:
        last.write_bytes(data)
        found = checkpoint.load_newest(task.folder)
        assert found is not None
        if found.path == last:
            assert isinstance(found.saved["step"], int) and isinstance(found.saved["method"], dict)
            checkpoint.weights_are_finite(found.saved)
            return "taken"
        try:
            checkpoint.load(last)
        except MillError as error:
            assert "\n" not in str(error) and "weights_only" not in str(error), str(error)
            return "the one before"
        raise AssertionError("it is loaded when named explicitly, but skipped otherwise")

    def change(data: bytes, draw: random.Random, other: bytes) -> bytes:
        return resealed.checkpoint(data, draw)

    outcome = Outcome()
    fuzz(task, outcome, [last.read_bytes()], resume, change)
    return outcome


def _fuzz(
    task: Task,
    seeds: list[Path],
    kind: str,
    opened: Callable[[bytes, Path], str],
    outcome: Outcome | None = None,
) -> Outcome:
    outcome = outcome or Outcome()

    def change(data: bytes, draw: random.Random, other: bytes) -> bytes:
        return resealed.columns_file(data, draw, kind, task.folder / "scratch")

    fuzz(task, outcome, [path.read_bytes() for path in seeds], opened, change)
    return outcome


def _folder(folder: Path) -> Path:
    for number in range(5):
        (folder / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        (folder / f"class{number % 2}" / f"{number}.jpg").write_bytes(containers.jpeg(number))
    return folder


CHECKS = (
    Check(
        "sealed-indexes", "indexes with other contents under fitting checksums",
        fuzz_indexes, 30, 5000, 50_000, 30,
    ),
    Check(
        "sealed-masks", "mask files with other contents under fitting checksums",
        fuzz_masks, 30, 5000, 50_000, 30,
    ),
    Check(
        "sealed-caches", "cached listings with other contents under fitting checksums",
        fuzz_caches, 40, 8000, 50_000, 40,
    ),
    Check(
        "sealed-stores", "decoded caches with other records under fitting checks",
        fuzz_stores, 20, 4000, 50_000, 20,
    ),
    Check(
        "sealed-checkpoints", "checkpoints with other contents under a fitting checksum",
        fuzz_checkpoints, 20, 4000, 50_000, 20,
    ),
)  # fmt: skip
