"""Compare the loader's speed on a folder and on other formats, and with FFCV's own loader.

    python benchmarks/formats.py [--data DIR|scenes:N] [--copies N] [--recipe 'dino(local_crops=6)']
        [--workers N] [--rounds N] [--json FILE]

A turn is one epoch of an existing loader; every contender has one turn per round. Warm: all files
are in the page cache. Cold: they are dropped from it before the turn, and the loader is rebuilt.
Reads are those of one thread in random order, per CPU second, from the page cache and without
decoding. FFCV's own operations run on the same .beton in two ways: one pipeline per view of the
recipe, which decodes once per view, as FFCV-SSL does; and one plain view, where it decodes as often
as our loader.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import kinds_of_data, source_rates, timing
from patchmill.benchmarks.lib.source_rates import Settings, read_settings
from patchmill.loaders import Crop, Recipe, Views, build
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.loaders.loader import Loader
from patchmill.loaders.prepare import make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import Source, open_source

FORMATS = ("folder", "shards", "beton")
PARQUET = ("parquet", "parquet, snappy")
ARCHIVES = ("zip", "tar of tars", "lmdb")
OTHERS = ("csv", "PIL items", "datasets.Dataset", *ARCHIVES)
PLAIN = Recipe((Views("view", 1, 224, Crop((0.08, 1.0)), flip=0.5),), name="one plain view")
VIEWS_BY_FFCV, PLAIN_BY_FFCV = "ffcv's own, a decoding for each view", "plain: ffcv's own"

Turn = Callable[[], float]  # loads an epoch; returns images per second


def main(argv: Sequence[str] | None = None) -> None:
    settings = read_settings("formats", __doc__, argv)
    if shutil.disk_usage(tempfile.gettempdir()).free < 1 << 30:
        raise MillError(
            "less than 1 GiB is free for temporary files: point TMPDIR to another folder"
        )
    recipe = load_recipe(settings.recipe)
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        paths = write_formats(settings, Path(folder))
        rates, notes = measure(paths, recipe, settings)
        reads = measure_reads(paths, settings)
    rows = {name: timing.summary(values) for name, values in rates.items()}
    ratios = {f"{a} / {b}": timing.ratio(rates[a], rates[b]) for a, b in _pairs(rates)}
    reads_per_s = {name: timing.summary(values) for name, values in reads.items()}
    plural = "" if settings.workers == 1 else "s"
    heading = (
        f"{settings.workers} worker{plural} per contender; {settings.recipe}, and one plain view "
        f"of 224 pixels\n{settings.copies} copies of {settings.data}; medians of "
        f"{settings.rounds} epochs"
    )
    tables: list[source_rates.Table] = [
        ("images/s", rows, ",.0f"),
        ("reads by CPU second", reads_per_s, ",.0f"),
        ("ratios", ratios, ".3f"),
    ]
    source_rates.show(heading, tables, notes)
    results = {"images_per_s": rows, "reads_per_cpu_s": reads_per_s, "ratios": ratios}
    source_rates.write(settings, results, notes)


# ---------------------------------------------------------------------------------------- measuring


def write_formats(settings: Settings, folder: Path) -> dict[str, Any]:
    """Write the images in every format, each of them `copies` times; return format -> data."""
    files = folder / "folder"
    source_rates.write_copies(settings, files)
    paths = {"folder": str(files), "shards": str(folder / "shards"), "beton": f"{folder}/all.beton"}
    for name in ("shards", "beton"):
        make_data.make(
            open_source(files), Path(paths[name]), Options(format=name), settings.workers
        )
    return paths | kinds_of_data.write(open_source(files), folder / "kinds")


def measure(
    paths: dict[str, Any], recipe: Recipe, settings: Settings
) -> tuple[dict[str, list[float]], list[str]]:
    """Images per second by contender and round, and notes on skipped contenders."""
    notes: list[str] = []
    with contextlib.ExitStack() as opened:
        warm = partial(_warm_turn, opened, settings)
        turns: dict[str, Turn] = {name: warm(data, recipe) for name, data in paths.items()}
        turns |= {
            f"{name}, cold": partial(_cold_epoch, paths[name], recipe, settings)
            for name in (*FORMATS, *PARQUET, *ARCHIVES)
            if name in paths
        }
        turns["plain: threads"] = warm(paths["beton"], PLAIN)
        try:
            turns["beton by ffcv"] = warm(paths["beton"], recipe, pipeline="ffcv")
            turns["plain: ffcv"] = warm(paths["beton"], PLAIN, pipeline="ffcv")
            turns |= _ffcv_turns(paths["beton"], recipe, settings)
        except MillError as error:
            notes.append(f"FFCV is skipped: {error}")
        with track("measuring", len(turns) * (1 + settings.rounds)) as advance:
            tracked = {name: partial(_tracked, turn, advance) for name, turn in turns.items()}
            timing.interleave(tracked, 1)  # warm-up
            return timing.interleave(tracked, settings.rounds), notes


def measure_reads(paths: dict[str, Any], settings: Settings) -> dict[str, list[float]]:
    """Reads per second of one thread's CPU time, by kind of data and round."""

    def turn(source: Source) -> float:
        order = np.random.default_rng(0).permutation(len(source)).tolist()
        began = time.thread_time()
        for index in order:
            source.read(index)
        return len(order) / (time.thread_time() - began)

    turns = {name: partial(turn, open_source(data)) for name, data in paths.items()}
    timing.interleave(turns, 1)  # warm-up
    return timing.interleave(turns, settings.rounds)


def _tracked(turn: Turn, advance: Callable[[int], None]) -> float:
    timing.wait_until_idle()
    rate = turn()
    advance(1)
    return rate


def _warm_turn(
    opened: contextlib.ExitStack,
    settings: Settings,
    data: Any,
    recipe: Recipe,
    pipeline: str = "threads",
) -> Turn:
    loader = _build(data, recipe, settings, pipeline)
    opened.callback(loader.close)
    return lambda: _rate(map(len, loader))


def _cold_epoch(path: str, recipe: Recipe, settings: Settings) -> float:
    _drop_from_page_cache(Path(path))
    loader = _build(path, recipe, settings, "threads")
    try:
        return _rate(map(len, loader))
    finally:
        loader.close()


def _build(data: Any, recipe: Recipe, settings: Settings, pipeline: str) -> Loader:
    return build(
        data,
        recipe,
        settings.batch_size,
        pipeline=pipeline,
        workers=settings.workers,
        drop_last=False,
        ledger=f"{data}.bad.jsonl" if isinstance(data, str) else None,
    )


def _ffcv_turns(beton: str, recipe: Recipe, settings: Settings) -> dict[str, Turn]:
    ffcv: Any = peers.load("ffcv")
    if reason := ffcv.available():
        raise MillError(reason)

    def turn(loader: Any) -> Turn:
        return lambda: _rate(len(batch[0]) for batch in ffcv.one_epoch(loader))

    workers, batch = settings.workers, settings.batch_size
    return {
        name: turn(ffcv.make_loader(beton, ffcv_recipe, workers, batch, drop_last=False))
        for name, ffcv_recipe in ((VIEWS_BY_FFCV, recipe), (PLAIN_BY_FFCV, PLAIN))
    }


def _rate(sizes: Iterator[int]) -> float:
    began = time.perf_counter()
    images = sum(sizes)
    return images / (time.perf_counter() - began)


def _drop_from_page_cache(root: Path) -> None:
    files = [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
    for path in files:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _pairs(rates: dict[str, list[float]]) -> list[tuple[str, str]]:
    pairs = [
        ("shards", "folder"),
        ("beton", "folder"),
        ("shards, cold", "folder, cold"),
        ("beton, cold", "folder, cold"),
        *((name, "folder") for name in (*PARQUET, *OTHERS)),
        *((f"{name}, cold", "folder, cold") for name in (*PARQUET, *ARCHIVES)),
        ("beton by ffcv", "beton"),
        ("plain: ffcv", PLAIN_BY_FFCV),
        ("plain: threads", PLAIN_BY_FFCV),
        ("beton by ffcv", VIEWS_BY_FFCV),
        ("beton", VIEWS_BY_FFCV),
    ]
    return [pair for pair in pairs if all(name in rates for name in pair)]


if __name__ == "__main__":
    run_command(main)
