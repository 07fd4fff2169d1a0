"""Work that writes to the disk: how to do it, and the files that it must leave."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import helpers_prepare as making
import numpy as np
from helpers_archives import write_zip
from helpers_shards import HOURS_AGO, write_tar

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.decoded.opening import open_store
from patchmill.loaders.order.permutation import Order
from patchmill.loaders.plan import draw
from patchmill.loaders.prepare import inspect_data, make_data, make_decoded, make_masks, mask_log
from patchmill.loaders.prepare.options import MaskOptions, Options
from patchmill.loaders.saliency import estimate
from patchmill.loaders.sources import open_source
from trust.faults.disk_faults import listed

GOOD, BULKY, BAD = 22, 30, 3
_CACHE = "10MB"


@dataclass(frozen=True)
class Work:
    """One kind of work. `judge` checks the files left; with `whole` they must be complete."""

    name: str
    do: Callable[[Path], str]  # in a folder, from the start or where it stopped
    judge: Callable[[Path, dict[str, bytes], bool], str]  # returns the problem; empty if none


def write_data(root: Path) -> Path:
    """Write photos of two classes in a folder, tars and a zip; bulky images; some non-images."""
    bad = {f"class0/bad{i}.jpg": b"no image" for i in range(BAD)}
    photos = {f"class{i % 2}/{i:02}.jpg": making.jpeg(i) for i in range(GOOD)} | bad
    making.write_folder(root / "photos", photos)
    bulky = {f"c{i % 2}/{i:02}.jpg": making.bulky(i, 60_000 + 999 * i) for i in range(BULKY)}
    making.write_folder(root / "bulky", bulky | bad)
    (root / "tars").mkdir()
    for number in range(2):
        some = sorted(photos.items())[number::2]
        write_tar(root / "tars" / f"data-{number:06}.tar", some)
    write_zip(root / "all.zip", photos)
    for path in [*root.rglob("*"), root]:
        os.utime(path, (HOURS_AGO, HOURS_AGO))
    return root


def works(data: Path) -> list[Work]:
    """All kinds of work on the data of `write_data`; compiles their kernels first."""
    assert draw.MAX_SIDE
    estimate(np.zeros((40, 60, 3), np.uint8), "gs", 24)
    Order(10, 0).ids(0, 0, 10)
    bulky, photos = data / "bulky", data / "photos"
    return [
        Work("shards", lambda folder: _prepare(bulky, folder / "shards", "shards"), _judge_files),
        Work(
            "shards of two ranks",
            lambda folder: _prepare(bulky, folder / "shards", "shards", ranks=2),
            _judge_files,
        ),
        Work("beton", lambda folder: _prepare(bulky, folder / "x.beton", "beton"), _judge_files),
        Work("masks", lambda folder: _make_masks(photos, folder), _judge_files),
        Work("indexes", lambda folder: _open_all(data), _judge_files),
        Work("decoded", lambda folder: _decode(photos, folder), _judge_store(photos)),
    ]


def in_folder(work: Work, folder: Path) -> Callable[[], str]:
    """The work in an existing folder, with its own cache folder."""

    def do() -> str:
        os.environ["PATCHMILL_CACHE"] = str(folder / "cache")
        return work.do(folder)

    return do


def _prepare(photos: Path, out: Path, form: str, ranks: int = 1) -> str:
    source = open_source(photos)
    for rank in range(ranks):
        options = Options(form, shard_size=1_000_000, rank=rank, world_size=ranks)
        make_data.make(source, out, options, workers=2)
    return ""


def _make_masks(photos: Path, folder: Path) -> str:
    mask_log._WRITE_BYTES = 400  # many writes
    for rank in range(2):
        options = MaskOptions("gs", 24, rank, 2)
        make_masks.make(open_source(photos), folder / "x.masks", options, 2)
    return ""


def _open_all(data: Path) -> str:
    """Open the sources that are indexed in the cache folder."""
    counts = [len(open_source(data / name)) for name in ("photos", "tars", "all.zip")]
    return "" if counts == [GOOD + BAD] * 3 else f"there are {counts} samples"


def _decode(photos: Path, folder: Path) -> str:
    result = make_decoded.make(open_source(photos), folder / "decoded", _CACHE, 2, 0, 1)
    return "full" if result.full else ""


# --------------------------------------------------------------------------------- allowed results


def _judge_files(folder: Path, expected: dict[str, bytes], whole: bool) -> str:
    """Files under their final names must be complete; with `whole` there must be no others."""
    there = listed(folder)
    for name, content in there.items():
        wanted = expected.get(name)
        progressing = name.endswith((".lock", "bad.jsonl")) and not whole
        if wanted is not None and content != wanted and not progressing:
            return f"{name} has {len(content)} bytes that differ from an undisturbed run's"
    if whole and set(there) != set(expected):
        missing, orphans = set(expected) - set(there), set(there) - set(expected)
        return f"{sorted(missing)} are missing and {sorted(orphans)} are left over"
    return "" if whole else _taken_for_whole(folder, set(expected) - set(there))


def _taken_for_whole(folder: Path, missing: set[str]) -> str:
    """Problem if inspect finds nothing wrong with an incomplete output."""
    for name in ("shards", "x.beton", "x.masks"):
        if (folder / name).exists() and any(path.startswith(name) for path in missing):
            try:
                _, problems = inspect_data.inspect(folder / name)
            except MillError:
                continue
            if not problems:
                return f"inspect finds nothing wrong with {name}, which lacks {sorted(missing)}"
    return ""


def _judge_store(photos: Path) -> Callable[[Path, dict[str, bytes], bool], str]:
    """Judge of a store of decoded images: each image in it must equal a fresh decode."""

    def judge(folder: Path, expected: dict[str, bytes], whole: bool) -> str:
        names = set(listed(folder)) if whole else set()
        if whole and names != set(expected):
            return f"there are {sorted(names)}, not {sorted(expected)}"
        if not (folder / "decoded").exists():
            return ""
        source = open_source(photos)
        store = open_store(f"disk:{folder / 'decoded'}:{_CACHE}", source)
        assert store is not None
        there = 0
        for id in range(len(source)):
            if (image := store.image(id)) is None:
                continue
            there += 1
            try:
                sound = np.array_equal(image, decode(source.read(id)))
            except BadImage:
                sound = False
            if not sound:
                return f"image {id} is torn"
        return f"{there} images of {GOOD}" if whole and there != GOOD else ""

    return judge
