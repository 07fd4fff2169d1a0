"""How much memory a loader takes beyond the batches that it has been asked to keep ready.

    python benchmarks/memory.py [--data DIR|scenes:N] [--recipe dino] [--batch-size 256]
        [--workers N] [--batches 12] [--json FILE]

The queue is what must be there: the batches made ahead, the one being made, and the one in the
training loop's hands. The peak is this whole process's, with Python, torch and mapped files.
"""

from __future__ import annotations

import argparse
import tempfile
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
MOST_IMAGES = 1000
MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """In MiB."""

    libraries: float  # before the loader is built
    batch: float
    queue: float
    peak: float

    @property
    def over_the_queue(self) -> float:
        return self.peak - self.queue


def main() -> None:
    arguments = _arguments()
    report.check_writable(arguments.json)
    views = load_recipe(arguments.recipe)
    images = Sample(open_source(arguments.data), MOST_IMAGES)
    found = measure(images, views, arguments.batch_size, arguments.workers, arguments.batches)
    print(
        f"{views.name}, batches of {arguments.batch_size}, {arguments.workers} workers\n"
        f"{'one batch':<34}{found.batch:>8,.0f} MiB\n"
        f"{f'the queue: {PREFETCH + 2} batches':<34}{found.queue:>8,.0f} MiB\n"
        f"{'the most the process ever had':<34}{found.peak:>8,.0f} MiB\n"
        f"{'over the queue':<34}{found.over_the_queue:>8,.0f} MiB\n"
        f"{'of which Python, torch and images':<34}{found.libraries:>8,.0f} MiB"
    )
    if arguments.json:
        asked = {name: getattr(arguments, name) for name in ("recipe", "batch_size", "workers")}
        mebibytes = {name: round(value, 1) for name, value in asdict(found).items()}
        mebibytes["over_the_queue"] = round(found.over_the_queue, 1)
        report.write_json(arguments.json, asked | {"mebibytes": mebibytes})


def measure(images: Sample, views: Recipe, batch_size: int, workers: int, batches: int) -> Memory:
    import torch  # noqa: F401

    libraries = machine.resident()
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        ledger = Path(folder, "bad.jsonl")
        loader = build(images, views, batch_size, workers=workers, prefetch=PREFETCH, ledger=ledger)
        bytes_of_batch = 0
        for _, batch in zip(range(batches), loader, strict=False):
            bytes_of_batch = sum(group.nbytes for group in batch.views.values())
    return Memory(
        libraries / MIB,
        bytes_of_batch / MIB,
        (PREFETCH + 2) * bytes_of_batch / MIB,
        machine.peak() / MIB,
    )


def _arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="scenes:256", help="a folder, or scenes:N (%(default)s)")
    parser.add_argument("--recipe", default="dino", help="a preset with its knobs, or a YAML file")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=machine.cores(), help="all cores")
    parser.add_argument("--batches", type=int, default=12, help="to look at (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
