"""Measure how fast a huge sharded data set opens, and the memory of walking through an epoch.

    python benchmarks/index.py [--samples 100000000] [--shards 10000] [--json FILE]

The shards are sparse files that share one synthetic index with checksums, labels and masks. The
index of the data set is real: 34 bytes per sample, written to a temporary folder (3.4 GB for 100
million samples) and in the page cache when opened. Every open is a new process. The walk iterates
over all steps of an epoch, with ids and labels, and then looks up some samples.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.benchmarks.lib import machine, report, timing
from patchmill.benchmarks.lib.report import Parser
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.loaders.files import columns
from patchmill.loaders.sources.shards import index as shard_index

GLOBAL_BATCH = 4096
MEAN_BYTES = 110_000  # per image
ROUNDS = 5
OLD_MTIME_NS = 1_600_000_000 * 10**9

OPEN = """
import json, sys, time
from patchmill.loaders.sources.shards.source import Shards
began = time.perf_counter()
source = Shards(sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - began, "samples": len(source)}))
"""
WALK = """
import json, sys, time
import numpy as np
from patchmill.loaders.order import permutation
from patchmill.loaders.sources.shards.source import Shards
def memory(kind):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith(kind))
source, batch = Shards(sys.argv[1]), int(sys.argv[2])
epoch_order = permutation.Order(len(source), 0)
epoch_order.ids(0, 0, 1)
before, seen, began = memory("VmRSS"), 0, time.perf_counter()
for step in range(permutation.steps(len(source), batch, False)):
    ids = epoch_order.ids(0, *permutation.share(len(source), batch, step, 0, 1))
    seen += len(source.labels_of(ids))
walked, peak, own = time.perf_counter() - began, memory("VmHWM"), memory("RssAnon")
some = epoch_order.ids(1, 0, min(len(source), 100_000)).tolist()
began = time.perf_counter()
for id in some:
    source.locate(id)
located = (time.perf_counter() - began) / len(some)
print(json.dumps({"seconds": walked, "samples": seen, "before_mib": before, "peak_mib": peak,
    "own_mib": own, "lookup_us": 1e6 * located}))
"""


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    report.check_writable(arguments.json)
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        results = measure(Path(folder), arguments.samples, arguments.shards)
    print(f"{machine.cpu()}, {machine.cores()} cores")
    print(f"{arguments.samples:,} samples in {arguments.shards:,} shards")
    for name, value in results.items():
        print(f"{name:<44}{value:>10,.2f}")
    if arguments.json:
        options = {"samples": arguments.samples, "shards": arguments.shards}
        rounded = {name: round(value, 3) for name, value in results.items()}
        report.write_json(arguments.json, options | {"results": rounded})


def measure(folder: Path, samples: int, shards: int) -> dict[str, float]:
    """All results by name, from shards made in `folder`."""
    data = _make_shards(folder / "shards", samples // shards, shards)
    first = _run(OPEN, folder, data)
    (index,) = (folder / "cache" / "shards").glob("*.set")
    later = timing.summary([_run(OPEN, folder, data)["seconds"] for _ in range(ROUNDS)])
    walk = _run(WALK, folder, data, str(GLOBAL_BATCH))
    if walk["samples"] != first["samples"]:
        raise MillError(f"the walk visited {walk['samples']} of {first['samples']} samples")
    return {
        "index, bytes a sample": index.stat().st_size / first["samples"],
        "first opening, s": first["seconds"],
        "later opening, s": later.median,
        "walk through an epoch, s": walk["seconds"],
        "walk, million samples/s": walk["samples"] / walk["seconds"] / 1e6,
        "memory before the walk, MiB": walk["before_mib"],
        "most memory, MiB": walk["peak_mib"],
        "of which not pages of mapped files, MiB": walk["own_mib"],
        "looking a sample up, µs": walk["lookup_us"],
    }


def _make_shards(folder: Path, samples: int, shards: int) -> Path:
    """Make sparse files of equal size, each with a hard link to the same index."""
    folder.mkdir()
    index = folder / "index"
    size = _write_index(index, samples)
    with track("making sparse shards", shards) as advance:
        for number in range(shards):
            shard = folder / f"data-{number:06d}.tar"
            shard.touch()
            os.truncate(shard, size)
            os.utime(shard, ns=(OLD_MTIME_NS, OLD_MTIME_NS))
            os.link(index, shard_index.index_path(shard))
            advance(1)
    return folder


def _write_index(path: Path, samples: int) -> int:
    """Write the index of a synthetic shard; returns the size the shard would have."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(MEAN_BYTES // 2, MEAN_BYTES * 3 // 2, samples)
    ends = np.cumsum(sizes + 4096)
    values = {
        "offsets": ends - sizes,
        "sizes": sizes,
        "checksums": rng.integers(0, 2**32, samples),
        "labels": rng.integers(0, 1000, samples),
        "mask_offsets": ends - sizes - 2048,
        "mask_sizes": rng.integers(100, 1000, samples),
        "mask_checksums": rng.integers(0, 2**32, samples),
    }
    content = {name: values[name].astype(dtype) for name, dtype in shard_index.DTYPES.items()}
    meta = {
        "tar_bytes": int(ends[-1]),
        "tar_mtime_ns": OLD_MTIME_NS,
        "members": 3 * samples,
        "classes": [],
        "fingerprint": "made up",
        "imageless": 0,
        "first_imageless": "",
    }
    columns.write(path, shard_index.KIND, content, meta)
    return int(ends[-1])


def _run(program: str, folder: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run a program in a new Python process; returns the JSON it prints."""
    environment = os.environ | {"PATCHMILL_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("index", __doc__)
    parser.add_argument(
        "--samples", type=int, default=100_000_000, help="34 bytes of disk each (%(default)s)"
    )
    parser.add_argument("--shards", type=int, default=10_000, help="(%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    arguments = parser.parse_args(argv)
    if not arguments.samples >= arguments.shards >= 1:
        raise MillError("--shards must be at least 1, and --samples at least as many")
    return arguments


if __name__ == "__main__":
    run_command(main)
