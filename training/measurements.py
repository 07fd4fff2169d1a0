"""Measured training throughput, from the logs of runs and from benchmark results.

The results are those that benchmarks/training.py --json wrote into benchmarks/results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import patchmill
from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config

RESULTS = Path(patchmill.__file__).resolve().parents[1] / "benchmarks" / "results"
PATTERN = "training*.json"
ROW = "patchmill"  # the row of such a file for our loader
MOST_RUNS = 20  # to compare with
LAST_ROWS = 50  # of log.csv: a run may have started on another machine
FEWEST_ROWS = 3
A_GPU, A_CPU = "a GPU", "a CPU"  # devices of a cluster's nodes, whose names are not known here


@dataclass(frozen=True)
class Measured:
    images_per_s: float  # over all ranks
    ranks: int
    device: str
    network: Mapping[str, Any]  # the result of `network`
    data: str
    batch_size: int
    what: str  # where the number is from


def nearest(config: Config, ranks: int, device: str) -> Measured | None:
    """Find the first measurement of the same network and device, if possible on as many ranks."""
    candidates = [
        measured
        for measured in (*from_runs(config), *from_results())
        if (
            measured.device == device
            or (device in (A_GPU, A_CPU) and is_gpu(measured.device) == is_gpu(device))
        )
        and measured.network == network(config, measured.device)
    ]
    return min(candidates, key=lambda measured: measured.ranks != ranks, default=None)


def from_runs(config: Config) -> Iterator[Measured]:
    """Yield the newest runs of the same method in the run's `out`, its own before the others."""
    from patchmill.training.runtime import records

    own = Path(config.out) / config.name
    logs = [(_modified(path), path.parent) for path in Path(config.out).glob(f"*/{records.LOG}")]
    logs.sort(key=lambda log: (log[1] == own, log), reverse=True)
    runs = (_from_run(folder, config.method_name, changed) for changed, folder in logs)
    return islice((run for run in runs if run), MOST_RUNS)


@cache
def _from_run(folder: Path, method_name: str, changed: float) -> Measured | None:
    """Return the last images/s that a run logged; None if too few, or for another method."""
    from patchmill.training.config import compose
    from patchmill.training.runtime import device, records, run_folder

    try:
        # This takes a tenth of the time of reading all settings.
        if f"method_name: {method_name}\n" not in (folder / compose.FILE).read_text():
            return None
        config, log = compose.load(folder), records.read(folder)
    except (MillError, OSError, ValueError):
        return None
    speeds = [speed for speed in log.get("images_per_s", []) if speed][-LAST_ROWS:]
    machine = run_folder.read_status(folder).get("machine")
    if len(speeds) < FEWEST_ROWS or not isinstance(machine, str):
        return None
    name, ranks = device.parse_machine(machine)
    return Measured(
        median(speeds),
        ranks,
        name,
        network(config, name),
        config.data.name,
        config.train.batch_size,
        f"{folder} (median of the last {len(speeds)} rows of its {records.LOG})",
    )


def from_results() -> Iterator[Measured]:
    """Yield measurements of benchmarks/training.py, on one rank each.

    Older files without `conditions` are skipped.
    """
    for path in sorted(RESULTS.glob(PATTERN), key=_modified, reverse=True):
        if measured := _from_result(path, _modified(path)):
            yield measured


@cache
def _from_result(path: Path, changed: float) -> Measured | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        (row,) = [row for row in content["rows"] if row["name"] == ROW]
        known = content["conditions"]
        return Measured(
            float(row["images_per_s"]),
            1,
            known["device"],
            known["network"],
            known["data"],
            known["batch_size"],
            f"{Path(*path.parts[-3:])} of {content['machine']['date']}",
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def conditions(config: Config, device: str) -> dict[str, Any]:
    """Return the conditions of measuring this configuration on one rank of a device, as JSON."""
    return {
        "network": network(config, device),
        "device": device,
        "data": config.data.name,
        "batch_size": config.train.batch_size,
    }


def network(config: Config, device: str) -> dict[str, Any]:
    """Return the settings that the time of a step depends on, on a given device.

    Of the method's settings, those that are not fractions: views, widths and so on.
    """
    from patchmill.training.config import compose

    plain = compose.plain(config)
    precision = config.train.precision
    if precision == "auto":
        precision = "bf16" if is_gpu(device) else "fp32"
    method = {key: value for key, value in plain["method"].items() if not _has_fraction(value)}
    return {
        "method_name": config.method_name,
        **{f"method.{key}": value for key, value in method.items()},
        **{f"model.{key}": value for key, value in plain["model"].items()},
        "size": config.size,
        "train.precision": precision,
        "train.compile": config.train.compile,
    }


def is_gpu(device: str) -> bool:
    return device != A_CPU and not re.search(r", \d+ cores?$", device)


def _has_fraction(value: Any) -> bool:
    return isinstance(value, float) or (
        isinstance(value, list | tuple) and any(map(_has_fraction, value))
    )


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
