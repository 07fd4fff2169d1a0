"""The same images as files, as shards and as a .beton: how fast the loader is on each, and FFCV.

    python benchmarks/formats.py [--data DIR|scenes:N] [--copies N] [--recipe 'dino(local_crops=6)']
        [--workers N] [--rounds N] [--json FILE]

A turn is one whole epoch of a loader that is built already, and everybody has one in every round.
Warm, all files are in the page cache; cold, they are dropped from it first and the loader is built
anew. FFCV's own operations work on the same .beton: with a pipeline for each view of the recipe,
which decodes once for each, as FFCV-SSL does it; and for one plain view, where it decodes as often
as we do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import machine, report, timing
from patchmill.benchmarks.lib.report import Parser
from patchmill.benchmarks.lib.timing import Summary
from patchmill.loaders import Crop, Recipe, Views, build
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.loaders.loader import Loader
from patchmill.loaders.prepare import make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import open_source

FORMATS = ("folder", "shards", "beton")
PLAIN = Recipe((Views("view", 1, 224, Crop((0.08, 1.0)), flip=0.5),), name="one plain view")
VIEWS_BY_FFCV, PLAIN_BY_FFCV = "ffcv's own, a decoding for each view", "plain: ffcv's own"

Turn = Callable[[], float]  # an epoch; its images per second


@dataclass(frozen=True)
class Settings:
    data: str
    copies: int
    recipe: str
    workers: int
    batch_size: int
    rounds: int
    json: str | None


def main() -> None:
    settings = _settings()
    report.check_writable(settings.json)
    views = load_recipe(settings.recipe)
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        places = write(settings, Path(folder))
        rates, notes = measure(places, views, settings)
    rows = {name: timing.summary(turns) for name, turns in rates.items()}
    ratios = {f"{a} / {b}": timing.ratio(rates[a], rates[b]) for a, b in _pairs(rates)}
    _show(rows, ratios, notes, settings)
    if settings.json:
        asked = {k: v for k, v in asdict(settings).items() if k != "json"}
        found = {
            "images_per_s": {name: _rounded(row) for name, row in rows.items()},
            "ratios": {name: _rounded(ratio) for name, ratio in ratios.items()},
        }
        report.write_json(settings.json, {**asked, **found, "notes": notes})


# ------------------------------------------------------------------------------------ the measuring


def write(settings: Settings, folder: Path) -> dict[str, str]:
    """The images in every format; only the copies make them different files."""
    source = open_source(settings.data)
    files = folder / "folder"
    with track("writing files", len(source) * settings.copies) as advance:
        for copy in range(settings.copies):
            (files / f"copy{copy:04d}").mkdir(parents=True)
            for id in range(len(source)):
                (files / f"copy{copy:04d}" / f"{id:08d}.jpg").write_bytes(source.read(id))
                advance(1)
    made = {"folder": str(files), "shards": str(folder / "shards"), "beton": f"{folder}/all.beton"}
    for name in ("shards", "beton"):
        make_data.make(open_source(files), Path(made[name]), Options(format=name), settings.workers)
    return made


def measure(
    places: dict[str, str], views: Recipe, settings: Settings
) -> tuple[dict[str, list[float]], list[str]]:
    """Images per second in every round, and why somebody is left out."""
    notes: list[str] = []
    with contextlib.ExitStack() as opened:
        ours = partial(_ours, opened, settings)
        turns: dict[str, Turn] = {name: ours(places[name], views) for name in FORMATS}
        turns |= {
            f"{name}, cold": partial(_cold, places[name], views, settings) for name in FORMATS
        }
        turns["plain: threads"] = ours(places["beton"], PLAIN)
        try:
            turns["beton by ffcv"] = ours(places["beton"], views, pipeline="ffcv")
            turns["plain: ffcv"] = ours(places["beton"], PLAIN, pipeline="ffcv")
            turns |= _ffcvs_own(places["beton"], views, settings)
        except MillError as error:
            notes.append(f"FFCV is left out: {error}")
        with track("measuring", len(turns) * (1 + settings.rounds)) as advance:
            told = {name: partial(_told, turn, advance) for name, turn in turns.items()}
            timing.interleave(told, 1)
            return timing.interleave(told, settings.rounds), notes


def _told(turn: Turn, advance: Callable[[int], None]) -> float:
    timing.wait_until_quiet()
    rate = turn()
    advance(1)
    return rate


def _ours(
    opened: contextlib.ExitStack,
    settings: Settings,
    place: str,
    views: Recipe,
    pipeline: str = "threads",
) -> Turn:
    loader = _build(place, views, settings, pipeline)
    opened.callback(loader.close)
    return lambda: _rate(map(len, loader))


def _cold(place: str, views: Recipe, settings: Settings) -> float:
    _drop_from_cache(Path(place))
    loader = _build(place, views, settings, "threads")
    try:
        return _rate(map(len, loader))
    finally:
        loader.close()


def _build(place: str, views: Recipe, settings: Settings, pipeline: str) -> Loader:
    ledger = f"{place}.bad.jsonl"
    return build(
        place,
        views,
        settings.batch_size,
        pipeline=pipeline,
        workers=settings.workers,
        drop_last=False,
        ledger=ledger,
    )


def _ffcvs_own(beton: str, views: Recipe, settings: Settings) -> dict[str, Turn]:
    ffcv: Any = peers.load("ffcv")
    if reason := ffcv.available():
        raise MillError(reason)

    def turn(loader: Any) -> Turn:
        return lambda: _rate(len(batch[0]) for batch in ffcv.epoch_of(loader))

    workers, batch = settings.workers, settings.batch_size
    return {
        name: turn(ffcv.loader_of(beton, wanted, workers, batch, drop_last=False))
        for name, wanted in ((VIEWS_BY_FFCV, views), (PLAIN_BY_FFCV, PLAIN))
    }


def _rate(sizes: Iterator[int]) -> float:
    began = time.perf_counter()
    images = sum(sizes)
    return images / (time.perf_counter() - began)


def _drop_from_cache(place: Path) -> None:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    for path in files:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _pairs(rates: dict[str, list[float]]) -> list[tuple[str, str]]:
    wanted = [
        ("shards", "folder"),
        ("beton", "folder"),
        ("shards, cold", "folder, cold"),
        ("beton, cold", "folder, cold"),
        ("beton by ffcv", "beton"),
        ("plain: ffcv", PLAIN_BY_FFCV),
        ("plain: threads", PLAIN_BY_FFCV),
        ("beton by ffcv", VIEWS_BY_FFCV),
        ("beton", VIEWS_BY_FFCV),
    ]
    return [pair for pair in wanted if all(name in rates for name in pair)]


# --------------------------------------------------------------------------------------- the report


def _show(
    rows: dict[str, Summary], ratios: dict[str, Summary], notes: list[str], settings: Settings
) -> None:
    console = Console(highlight=False)
    plural = "" if settings.workers == 1 else "s"
    console.print(
        f"{machine.cpu()}, {machine.cores()} cores; {settings.workers} worker{plural} each; "
        f"{settings.recipe}, and one plain view of 224 pixels\n"
        f"{settings.copies} copies of {settings.data}; medians of {settings.rounds} epochs each\n",
        style="dim",
        markup=False,
    )
    for title, found, form in (("images/s", rows, ",.0f"), ("ratios", ratios, ".3f")):
        table = report.new_table(title, "median", "low to high")
        for name, one in found.items():
            spread = f"{one.low:{form}} to {one.high:{form}}"
            table.add_row(name, f"[bold]{one.median:{form}}[/]", spread)
        console.print(table)
        console.print()
    for note in notes:
        console.print(note, style="dim", markup=False)


def _rounded(summary: Summary) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(summary).items()}


def _settings() -> Settings:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="scenes:256", help="a folder, or scenes:N (%(default)s)")
    parser.add_argument("--copies", type=int, default=4, help="of each image (%(default)s)")
    parser.add_argument("--recipe", default="dino", help="a preset with its knobs, or a YAML file")
    parser.add_argument("--workers", type=int, default=machine.cores(), help="(all cores)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    given = vars(parser.parse_args())
    for name in ("copies", "workers", "batch_size", "rounds"):
        if not given[name] > 0:
            raise MillError(f"--{name.replace('_', '-')} must be above 0, not {given[name]}")
    if shutil.disk_usage(tempfile.gettempdir()).free < 1 << 30:
        raise MillError("less than 1 GiB is free for temporary files: point TMPDIR elsewhere")
    return Settings(**given)


if __name__ == "__main__":
    run_command(main)
