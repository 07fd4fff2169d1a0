"""Compare the speed of preparing data on one core with copying it and with plain re-encoding.

    python benchmarks/prepare.py [--data DIR] [--megabytes 400] [--max-side 256] [--json FILE]

Unchanged images go to shards and to a .beton, compared with `tar` (followed by fsync, as in
prepare) and with `cp -r` (without); all read the same folder from the page cache. Downsizing is
compared with a loop that decodes, resizes and encodes images in memory: at full size, and the way
prepare does it. All contenders, with all their threads, run on one core, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.benchmarks.lib import report, sample, timing
from patchmill.benchmarks.lib.sample import Sample
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.order import permutation
from patchmill.loaders.prepare import images, make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.sources import Source, open_source
from patchmill.loaders.sources.folder import Folder
from patchmill.loaders.sources.numbered import NumberedSource

REENCODED = 400  # images in a turn, at most


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    report.check_writable(arguments.json)
    if not shutil.which("tar") or not shutil.which("cp"):
        raise MillError("this benchmark compares with tar and cp: install both")
    selected = Sample(open_source(arguments.data or "scenes:200"), 200)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        os.environ["PATCHMILL_CACHE"] = f"{folder}/cache"
        source = _write(Path(folder, "source"), selected, arguments.megabytes * 10**6)
        result = measure(source, Path(folder), arguments.rounds, arguments.max_side)
    result["images"] = sample.describe(selected.encoded)
    _show(result)
    if arguments.json:
        report.write_json(arguments.json, result)


def measure(source: Folder, folder: Path, rounds: int, max_side: int) -> dict[str, Any]:
    """Rates of all contenders, and ratios per round."""
    permutation.Order(10, 0).ids(0, 0, 10)  # compiles
    out = folder / "out"
    first = _FirstImages(source, REENCODED)
    encoded = [first.read(i) for i in range(len(first))]
    smaller = Options("shards", max_side=max_side)
    turns: dict[str, tuple[int, Callable[[], object]]] = {
        "tar, then fsync": (len(source), lambda: _tar(source.name, out)),
        "cp -r": (len(source), lambda: subprocess.run(["cp", "-r", source.name, out], check=True)),
        "keep, to shards": (len(source), lambda: make_data.make(source, out, Options("shards"), 1)),
        "keep, to a .beton": (
            len(source),
            lambda: make_data.make(source, out.with_suffix(".beton"), Options("beton"), 1),
        ),
        "bare decode, resize, encode": (len(first), lambda: _reencode(encoded, max_side)),
        "prepare's own of it": (len(first), lambda: [images.convert(d, smaller) for d in encoded]),
        "make smaller, to shards": (len(first), lambda: make_data.make(first, out, smaller, 1)),
    }
    timed = {name: _timed(run, folder) for name, (_, run) in turns.items()}
    timing.interleave(timed, 1)  # warm-up
    seconds = timing.interleave(timed, rounds)
    megabytes = sum(map(len, encoded)) / len(encoded) / 1e6  # per image
    rates = {name: [turns[name][0] / s for s in values] for name, values in seconds.items()}
    rows = []
    for name, rate in ((name, timing.summary(values)) for name, values in rates.items()):
        rows.append(
            {
                "name": name,
                "images_per_s": round(rate.median, 1),
                "megabytes_per_s": round(rate.median * megabytes, 1),
                "spread": round(rate.spread, 3),
            }
        )
    pairs = {
        "keep, shards / tar": ("keep, to shards", "tar, then fsync"),
        "keep, shards / cp": ("keep, to shards", "cp -r"),
        "smaller / bare": ("make smaller, to shards", "bare decode, resize, encode"),
        "smaller / its own": ("make smaller, to shards", "prepare's own of it"),
    }
    ratios = {name: timing.ratio(rates[a], rates[b]) for name, (a, b) in pairs.items()}
    rounded = {name: [round(v, 3) for v in (r.median, r.low, r.high)] for name, r in ratios.items()}
    return {"rows": rows, "ratios": rounded, "max_side": max_side}


class _FirstImages(NumberedSource):
    """The first images of a source."""

    labels: np.ndarray | None = None

    def __init__(self, source: Source, count: int) -> None:
        self.name, self.fingerprint = source.name, source.fingerprint
        self.classes: list[str] = []
        self.read, self.where = source.read, source.where
        self._count = min(count, len(source))

    def __len__(self) -> int:
        return self._count


def _write(folder: Path, selected: Sample, total_bytes: int) -> Folder:
    """Write the images repeatedly, in ten classes, until the folder has this many bytes."""
    written = 0
    for number, data in enumerate(itertools.cycle(selected.encoded)):
        if written >= total_bytes:
            break
        path = folder / f"class{number // len(selected.encoded) % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written += len(data)
    return Folder(folder)


def _timed(run: Callable[[], object], folder: Path) -> Callable[[], float]:
    def turn() -> float:
        os.sync()
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        for path in folder.glob("out*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return seconds

    return turn


def _tar(folder: str, out: Path) -> None:
    subprocess.run(["tar", "cf", out, "-C", folder, "."], check=True)
    with open(out, "rb") as file:
        os.fsync(file.fileno())


def _reencode(encoded: list[bytes], side: int) -> None:
    """Decode at full size, resize, encode."""
    for data in encoded:
        pixels = decode(data)
        if max(pixels.shape) > side:
            images.encode(images.resize(pixels, images.fit_size(pixels.shape[:2], side)), 90)


def _show(result: dict[str, Any]) -> None:
    print("{count} different images, on average {kilobytes} kB".format(**result["images"]))
    print(f"{'on one core':<30}{'images/s':>10}{'MB/s':>8}{'spread':>8}")
    for row in result["rows"]:
        name, spread = row["name"], row["spread"]
        print(f"{name:<30}{row['images_per_s']:>10.0f}{row['megabytes_per_s']:>8.0f}{spread:>8.1%}")
    for name, (median, low, high) in result["ratios"].items():
        print(f"{name:<30}{median:>10.2f}   {low:.2f} to {high:.2f}")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = report.Parser("prepare", __doc__)
    parser.add_argument("--data", help="a folder of images, or scenes (the default)")
    parser.add_argument("--folder", help="folder for temporary files (default: the system's)")
    parser.add_argument(
        "--megabytes", type=int, default=400, help="megabytes of images per turn (%(default)s)"
    )
    parser.add_argument(
        "--max-side", type=int, default=256, help="longer side of images made smaller (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (%(default)s)")
    parser.add_argument("--json", help="write the results here too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
