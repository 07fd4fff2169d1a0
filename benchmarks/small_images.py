"""Measure the loader on small images that are decoded already, with one worker and with more.

    python benchmarks/small_images.py --data cifar10/train [--workers 1 2] [--batch-size 256]
        [--cache ram:1GB] [--rounds 9] [--seconds 2] [--json FILE]

Each recipe's loader fills its cache in a first epoch that is not measured. Then all loaders go in
turns, from the order of the samples to the batch that a training loop gets. Reported are images per
second of wall time, the CPU cores that were busy meanwhile, and what more workers gain, by round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from patchmill import loaders
from patchmill.benchmarks.lib import machine, report, timing
from patchmill.benchmarks.lib.throughput.contenders import CachedContender, measure_in_turns
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.sources import open_source

RECIPES = ("eval(size=32, short_side=32)", "simclr(size=32, blur=0)", "emp_ssl")


def main(words: Sequence[str] | None = None) -> None:
    settings = _parser().parse_args(words)
    report.check_writable(settings.json)
    if min(*settings.workers, settings.rounds, settings.batch_size) < 1 or settings.seconds <= 0:
        raise MillError("--workers, --rounds, --batch-size and --seconds must be positive")
    rows = measure(settings)
    print(f"{machine.cpu()}, {machine.cores()} cores")
    table = report.new_table("recipe", "workers", "images/s", "spread", "cores busy", "gain")
    for row in rows:
        gain = f"{row['gain']:.2f}" if row["gain"] else ""
        table.add_row(
            row["recipe"], str(row["workers"]), f"{row['images_per_s']:,.0f}",
            f"{row['low']:,.0f} to {row['high']:,.0f}", f"{row['cores']:.2f}", gain,
        )  # fmt: skip
    Console(highlight=False).print(table)
    if settings.json:
        report.write_json(settings.json, {"batch_size": settings.batch_size, "rows": rows})


def measure(settings: Any) -> list[dict[str, Any]]:
    """One row for each recipe and number of workers."""
    source = open_source(settings.data)
    contenders = []
    for recipe in RECIPES:
        for workers in settings.workers:
            loader = loaders.build(
                source, recipe, settings.batch_size, workers=workers, cache=settings.cache
            )
            contenders.append(CachedContender(loader, settings.batch_size, workers))
            contenders[-1].name = _name(recipe, workers)
    measured = measure_in_turns(contenders, [], settings.rounds, settings.seconds)
    rows = []
    for recipe in RECIPES:
        first = measured.rates[_name(recipe, settings.workers[0])]
        for workers in settings.workers:
            name = _name(recipe, workers)
            rate = timing.summary(measured.rates[name])
            gain = timing.ratio(measured.rates[name], first).median
            rows.append(
                {
                    "recipe": recipe,
                    "workers": workers,
                    "images_per_s": round(rate.median),
                    "low": round(rate.low),
                    "high": round(rate.high),
                    "cores": round(timing.summary(measured.cores[name]).median, 2),
                    "gain": None if workers == settings.workers[0] else round(gain, 2),
                }
            )
    return rows


def _name(recipe: str, workers: int) -> str:
    return f"{recipe}, {workers} workers"


def _parser() -> report.Parser:
    parser = report.Parser("small_images", __doc__)
    parser.add_argument("--data", required=True, help="images of about 32 pixels, as CIFAR's")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=256, help="(%(default)s)")
    parser.add_argument("--cache", default="ram:1GB", help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    return parser


if __name__ == "__main__":
    run_command(main)
