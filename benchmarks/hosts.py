"""Measure the data wait of frameworks with their usual views and with patchmill's.

    python benchmarks/hosts.py [--data DIR] [--hosts dino,timm] [--batch-size 32] [--workers N]
        [--step-ms 50] [--steps 8] [--rounds 3] [--json FILE]

A loop takes batches and, for each, sleeps as long as a step on a GPU would take, leaving the CPU to
the loader. The data wait is the part of a step that the loop waits for its batch. Before: the
framework's usual transforms in N worker processes of torch's DataLoader. After: patchmill makes as
many views of the same size in as many threads. All hosts take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib import report, sample, timing
from patchmill.benchmarks.lib.host_loaders import HOSTS, Host, Settings
from patchmill.benchmarks.lib.sample import Sample
from patchmill.loaders import adapt, build
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.threads import available_cores
from patchmill.loaders.sources import open_source

SKIPPED = 2  # first batches, during which workers start


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    report.check_writable(arguments.json)
    count = arguments.batch_size * (arguments.steps + SKIPPED)
    images = Sample(open_source(arguments.data or f"scenes:{count}"), count)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), arguments.batch_size, arguments.workers)
        write_classes(images, settings.folder)
        rows = measure(settings, arguments)
    print(_table(rows))
    if arguments.json:
        options = {name: value for name, value in vars(arguments).items() if name != "json"}
        about = {"source": images.name, **sample.describe(images.encoded)}
        report.write_json(arguments.json, {**options, "images": about, "rows": rows})


def write_classes(images: Sample, folder: Path) -> None:
    """Write the images into two class folders."""
    for name in ("a", "b"):
        (folder / name).mkdir()
    for number, path in enumerate(images.write_files(folder)):
        Path(path).rename(folder / "ab"[number % 2] / Path(path).name)


def measure(settings: Settings, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of all hosts, which also take turns with each other."""
    pace = {"steps": arguments.steps, "step": arguments.step_ms / 1000}
    turns = {}
    for name in arguments.hosts:
        host = HOSTS[name]
        turns[f"{name} before"] = partial(wait, partial(host.before, host.recipe, settings), **pace)
        turns[f"{name} after"] = partial(wait, partial(after, host, settings), **pace)
    try:
        timing.interleave(turns, 1)  # compiles what is not cached yet
    except ModuleNotFoundError as error:
        raise MillError(f"{error.name} is missing: pip install 'patchmill[adapters]'") from None
    waits = timing.interleave(turns, arguments.rounds)
    return [_row(name, waits[f"{name} before"], waits[f"{name} after"]) for name in arguments.hosts]


def _row(name: str, before: list[float], after: list[float]) -> dict[str, Any]:
    host = HOSTS[name]
    row: dict[str, Any] = {"name": name, "before": host.usual, "views": str(host.recipe)}
    for turn, values in (("before", before), ("after", after)):
        summary = timing.summary(values)
        row[f"{turn}_ms"] = round(1e3 * summary.median, 1)
        for end in ("low", "high"):
            row[f"{turn}_{end}_ms"] = round(1e3 * getattr(summary, end), 1)
    return row


def after(host: Host, settings: Settings) -> Iterable[Any]:
    loader = build(
        settings.folder,
        host.recipe,
        settings.batch_size,
        workers=max(1, settings.workers),
        pipeline="threads",
    )
    return getattr(adapt, host.adapter)(loader) if host.adapter else loader


def wait(opened: Callable[[], Iterable[Any]], steps: int, step: float) -> float:
    """Mean seconds that a loop waits for a batch, after the first ones."""
    batches = iter(opened())
    waited = 0.0
    for number in range(SKIPPED + steps):
        start = time.perf_counter()
        next(batches)
        if number >= SKIPPED:
            waited += time.perf_counter() - start
        time.sleep(step)
    return waited / steps


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'host':20} {'before':>10} {'after':>10}   ms of data wait in a step"]
    for row in rows:
        lines.append(f"{row['name']:20} {row['before_ms']:10,.1f} {row['after_ms']:10,.1f}")
    return "\n".join(lines)


def _hosts(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in HOSTS:
            raise MillError(f"there is no host {name!r}: the hosts are {', '.join(HOSTS)}")
    return names


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = report.Parser("hosts", __doc__)
    parser.add_argument("--data", metavar="DIR", help="images, as for a loader; default: scenes")
    parser.add_argument("--hosts", type=_hosts, default=list(HOSTS), help="some of them")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images in a batch")
    parser.add_argument("--workers", type=int, default=available_cores(), metavar="N")
    parser.add_argument("--step-ms", type=float, default=50, metavar="MS", help="of a step")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="in a turn")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
