"""Measure a loader's memory beyond the batches that it must keep queued.

    python benchmarks/memory.py [--data DIR|scenes:N] [--recipe dino] [--batch-size 256]
        [--workers N] [--batches 12] [--json FILE]

The queue consists of the prefetched batches, the one in progress, and the one in use by the
training loop. The peak is that of the whole process, including Python, torch and mapped files.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from patchmill.benchmarks.lib import machine, report
from patchmill.benchmarks.lib.report import Parser
from patchmill.benchmarks.lib.sample import Sample
from patchmill.loaders import build
from patchmill.loaders.common.errors import run_command
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import open_source

PREFETCH = 2
MAX_IMAGES = 1000
MIB = 2**20


@dataclass(frozen=True)
class MemoryUse:
    """Resident memory in MiB."""

    libraries: float  # before the loader is built
    batch: float
    queue: float
    peak: float

    @property
    def over_the_queue(self) -> float:
        return self.peak - self.queue


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    report.check_writable(arguments.json)
    recipe = load_recipe(arguments.recipe)
    images = Sample(open_source(arguments.data), MAX_IMAGES)
    used = measure(images, recipe, arguments.batch_size, arguments.workers, arguments.batches)
    print(
        f"{recipe.name}, batches of {arguments.batch_size}, {arguments.workers} workers\n"
        f"{'one batch':<34}{used.batch:>8,.0f} MiB\n"
        f"{f'the queue: {PREFETCH + 2} batches':<34}{used.queue:>8,.0f} MiB\n"
        f"{'peak of the process':<34}{used.peak:>8,.0f} MiB\n"
        f"{'over the queue':<34}{used.over_the_queue:>8,.0f} MiB\n"
        f"{'of which Python, torch and the images':<34}{used.libraries:>8,.0f} MiB"
    )
    if arguments.json:
        options = {name: getattr(arguments, name) for name in ("recipe", "batch_size", "workers")}
        mebibytes = {name: round(value, 1) for name, value in asdict(used).items()}
        mebibytes["over_the_queue"] = round(used.over_the_queue, 1)
        report.write_json(arguments.json, options | {"mebibytes": mebibytes})


def measure(
    images: Sample, recipe: Recipe, batch_size: int, workers: int, batches: int
) -> MemoryUse:
    import torch  # noqa: F401

    libraries = machine.resident_bytes()
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        ledger = Path(folder, "bad.jsonl")
        loader = build(
            images, recipe, batch_size, workers=workers, prefetch=PREFETCH, ledger=ledger
        )
        batch_bytes = 0
        for _, batch in zip(range(batches), loader, strict=False):
            batch_bytes = sum(group.nbytes for group in batch.views.values())
    return MemoryUse(
        libraries / MIB,
        batch_bytes / MIB,
        (PREFETCH + 2) * batch_bytes / MIB,
        machine.peak_bytes() / MIB,
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("memory", __doc__)
    parser.add_argument("--data", default="scenes:256", help="a folder, or scenes:N (%(default)s)")
    parser.add_argument("--recipe", default="dino", help="a preset with its knobs, or a YAML file")
    parser.add_argument("--batch-size", type=int, default=256, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=machine.cores(), help="default: all cores")
    parser.add_argument("--batches", type=int, default=12, help="to load (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
