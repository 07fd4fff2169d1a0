"""Measure small images, where the loader's overhead per image matters, not the pixels.

    python benchmarks/small_images.py [--data DIR|scenes:N] [--cache ram:1GB] [--seconds 12]
        [--json FILE]

Second epochs from a decoded cache, with one and two workers: the plain view of an evaluation,
SimCLR's two views, and EMP-SSL's twenty patches, all of 32 x 32 pixels in float32. Then, without a
cache, the loader's maximum rate with 1, 2, 4 and 8 workers if decoding takes no time: a stub
returns the same pixels for every image. All take turns; filling caches, compilation and batches
queued beforehand are not counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from rich.console import Console

from patchmill.benchmarks.lib import machine, report, timing
from patchmill.benchmarks.lib.report import Parser
from patchmill.benchmarks.lib.sample import LENGTH, Sample, describe
from patchmill.benchmarks.lib.throughput import contenders
from patchmill.benchmarks.lib.throughput.contenders import CachedContender, LoaderContender, Rates
from patchmill.benchmarks.lib.timing import Summary
from patchmill.loaders import build
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.loader import Loader
from patchmill.loaders.pipelines import samples
from patchmill.loaders.sources import open_source

SIZE = 32
RECIPES = {
    "eval view": f"eval(size={SIZE}, short_side={SIZE})",
    "simclr 2 x 32": f"simclr(size={SIZE}, blur=0)",
    "emp_ssl 20 x 32": f"emp_ssl(size={SIZE})",
}
STAND_IN = "no decoding"  # the plain view of an evaluation
CACHED_WORKERS, STAND_IN_WORKERS = (1, 2), (1, 2, 4, 8)
MAX_IMAGES = 10_000
EPOCH = 50_000  # samples, as CIFAR has; images are repeated
BATCH_SIZE = 256
ROUNDS = 5


@dataclass(frozen=True)
class Settings:
    data: str
    cache: str
    seconds: float
    json: str | None


@dataclass(frozen=True)
class Row:
    name: str
    rate: Summary  # images per second
    workers: int
    cores: float  # busy during its turns

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "images_per_s": round(self.rate.median),
            "spread": round(self.rate.spread, 3),
            "workers": self.workers,
            "cores_busy": round(self.cores, 2),
        }


def main(argv: Sequence[str] | None = None) -> None:
    settings = _settings(argv)
    report.check_writable(settings.json)
    torch.set_num_threads(1)
    images = Sample(open_source(settings.data), MAX_IMAGES)
    about = describe(images.encoded)
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        everybody = _contenders(images, settings, Path(folder))
        turn = settings.seconds / ROUNDS
        measured = contenders.measure_in_turns(list(everybody.values()), [], ROUNDS, turn)
    rows = [
        Row(
            name,
            timing.summary(measured.rates[name]),
            contender.workers,
            timing.summary(measured.cores[name]).median,
        )
        for name, contender in everybody.items()
    ]
    ratios = _ratios(measured.rates)
    _show(rows, ratios, about)
    if settings.json:
        content = {
            "data": settings.data,
            "cache": settings.cache,
            "images": about,
            "batch_size": BATCH_SIZE,
            "rounds": ROUNDS,
            "rows": [row.as_json() for row in rows],
            "ratios": {name: round(ratio.median, 3) for name, ratio in ratios.items()},
        }
        report.write_json(settings.json, content)


# ----------------------------------------------------------------------------------- the contenders


def _contenders(images: Sample, settings: Settings, folder: Path) -> dict[str, LoaderContender]:
    epoch, ledger = images.repeated(EPOCH), folder / "bad.jsonl"
    everybody: dict[str, LoaderContender] = {}
    for label, recipe in RECIPES.items():
        for workers in CACHED_WORKERS:
            loader = build(
                epoch, recipe, BATCH_SIZE, workers=workers, cache=settings.cache, ledger=ledger
            )
            cached = CachedContender(loader, BATCH_SIZE, workers)
            everybody[_name(label, workers)] = cached
    for workers in STAND_IN_WORKERS:
        loader = without_decoding(BATCH_SIZE, workers, ledger)
        everybody[_name(STAND_IN, workers)] = LoaderContender(loader, BATCH_SIZE, workers)
    for name, contender in everybody.items():
        contender.name = name
    return everybody


def _name(label: str, workers: int) -> str:
    return f"{label}, {workers} worker{'s' * (workers > 1)}"


class StandInSource:
    """Samples without bytes."""

    name, fingerprint = "stand-in", "stand-in"
    classes: ClassVar[list[str]] = []
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return LENGTH

    def read(self, index: int) -> bytes:
        return b"\0"

    def where(self, index: int) -> str:
        return self.name


class StandInDecoder:
    """A worker's decoder, as used by `loaders/pipelines/samples.py`, without any decoding."""

    def __init__(self, max_pixels: int) -> None:
        self._image = np.full((SIZE, SIZE, 3), 127, np.uint8)

    def reuse(self) -> None:
        pass

    def one_more(self, data: bytes) -> np.ndarray:
        return self._image


def without_decoding(batch_size: int, workers: int, ledger: Path) -> Loader:
    """A loader of the stub's plain views; its workers get their decoders when it is built."""
    with mock.patch.object(samples, "Decoder", StandInDecoder):
        recipe = RECIPES["eval view"]
        return build(StandInSource(), recipe, batch_size, workers=workers, ledger=ledger)


# --------------------------------------------------------------------------------------- the report


def _ratios(rates: Mapping[str, Rates]) -> dict[str, Summary]:
    """Rates of several workers divided by that of one."""
    counts = {**dict.fromkeys(RECIPES, CACHED_WORKERS), STAND_IN: STAND_IN_WORKERS}
    return {
        f"{label}: {workers} workers / one": timing.ratio(
            rates[_name(label, workers)], rates[_name(label, 1)]
        )
        for label, all_workers in counts.items()
        for workers in all_workers[1:]
    }


def _show(rows: Sequence[Row], ratios: Mapping[str, Summary], about: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(
        f"{machine.cpu()}, {machine.cores()} cores; {about['count']} images of "
        f"{about['width']} x {about['height']} pixels; batches of {BATCH_SIZE}\n",
        style="dim",
    )
    table = report.new_table("", "images/s", "low to high", "µs per image", "cores")
    for row in rows:
        one = row.rate
        median, quartiles = f"[bold]{one.median:,.0f}[/]", f"{one.low:,.0f} to {one.high:,.0f}"
        table.add_row(row.name, median, quartiles, f"{1e6 / one.median:.1f}", f"{row.cores:.2f}")
    console.print(table)
    console.print()
    for name, ratio in ratios.items():
        console.print(
            f"{name:<34}[bold]{ratio.median:5.2f}[/]   {ratio.low:.2f} to {ratio.high:.2f}"
        )


def _settings(argv: Sequence[str] | None) -> Settings:
    parser = Parser("small-images", __doc__)
    parser.add_argument(
        "--data", default=f"scenes(count=2048, size={SIZE})", help="small images (%(default)s)"
    )
    parser.add_argument("--cache", default="ram:1GB", help="of decoded images (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="measured seconds per contender (%(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    arguments = vars(parser.parse_args(argv))
    if not arguments["seconds"] > 0:
        raise MillError(f"--seconds must be above 0, not {arguments['seconds']}")
    return Settings(**arguments)


if __name__ == "__main__":
    run_command(main)
