"""Hours that a run is expected to train: all its images by the images/s that were measured before.

Measurements are runs beside it that trained the same network on the same views, else files that
benchmarks/training.py --json wrote into benchmarks/results. Without one there is no number.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
ROW = "patchmill"  # the row of such a file that our loader feeds
MOST_RUNS = 20  # to compare with
LAST_ROWS = 50  # of log.csv: a run may have begun on another machine
FEWEST_ROWS = 3
A_GPU, A_CPU = "a GPU", "a CPU"  # devices of a cluster's nodes, whose names are not known here


@dataclass(frozen=True)
class Expected:
    hours: float | None
    why: str

    def __str__(self) -> str:
        return f"{'unknown' if self.hours is None else duration(self.hours)}: {self.why}"


@dataclass(frozen=True)
class Measured:
    images_per_s: float  # of all ranks
    ranks: int
    device: str
    network: Mapping[str, Any]  # as `network` gives it
    data: str
    batch_size: int
    what: str  # where the number is from


def expect(
    config: Config,
    ranks: int,
    device: str,
    words: Sequence[str] = (),
) -> Expected:
    """Expected hours on so many ranks of a device.

    `words` are the settings on the command line, for advice on measuring.
    """
    measured = _nearest(config, ranks, device, [*of_runs(config), *of_results()])
    if measured is None:
        return Expected(None, _advice(config, ranks, device, words))
    try:
        images = _images(config)
    except MillError as error:
        return Expected(None, str(error))
    rate = measured.images_per_s * ranks / measured.ranks
    hours = images / rate / 3600
    return Expected(hours, "; ".join(_reasons(config, ranks, measured, images, rate)))


def this_device(config: Config) -> str:
    """Device that the run would train on here, in words."""
    import torch

    from patchmill.training.ranks.distributed import World
    from patchmill.training.runtime import device

    chosen, has_gpu = config.train.device, torch.cuda.is_available()
    if chosen == "auto":
        chosen = "cuda" if has_gpu else "cpu"
    if chosen.startswith("cuda") and not has_gpu:
        return A_GPU
    return device.describe(World(device=torch.device(chosen)))["machine"]


def conditions(config: Config, device: str) -> dict[str, Any]:
    """What a measurement of this configuration on one rank of a device is known by, as JSON."""
    return {
        "network": network(config, device),
        "device": device,
        "data": config.data.name,
        "batch_size": config.train.batch_size,
    }


def network(config: Config, device: str) -> dict[str, Any]:
    """Settings that the time of a step depends on, on a given device.

    Of the method's those that are not fractions: views, widths and the like.
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


def steps_per_epoch(config: Config, samples: int | None) -> int:
    """Optimiser steps of an epoch; `samples` is None for streamed shards."""
    if samples is not None:
        return samples // config.train.batch_size
    if config.data.steps is None:
        raise MillError(
            "streamed shards have no known length: set the batches of an epoch, as data.steps=1000"
        )
    if steps := config.data.steps // config.train.accumulate:
        return steps
    raise MillError(
        f"an epoch of data.steps={config.data.steps} batches is less than one step of "
        f"train.accumulate={config.train.accumulate}: accumulate fewer"
    )


def is_gpu(device: str) -> bool:
    return device != A_CPU and not re.search(r", \d+ cores?$", device)


def duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    minutes = round(hours * 60)
    return f"{minutes} minute{'s' * (minutes != 1)}" if minutes else "less than a minute"


# ------------------------------------------------------------------------------------ measurements


def of_runs(config: Config) -> Iterator[Measured]:
    """Newest runs of the same method in the run's `out`, its own before the others."""
    from patchmill.training.runtime import records

    own = Path(config.out) / config.name
    logs = [(_modified(path), path.parent) for path in Path(config.out).glob(f"*/{records.LOG}")]
    logs.sort(key=lambda log: (log[1] == own, log), reverse=True)
    found = (_of_run(folder, config.method_name, changed) for changed, folder in logs)
    return islice((measured for measured in found if measured), MOST_RUNS)


@cache
def _of_run(folder: Path, method_name: str, changed: float) -> Measured | None:
    """The last images/s that a run logged; None for too few of them, or for another method."""
    from patchmill.training.config import compose
    from patchmill.training.runtime import device, records, run_folder

    try:
        # A tenth of the time that reading all settings takes.
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


def of_results() -> Iterator[Measured]:
    """Measurements of benchmarks/training.py, on one rank each.

    Files from before it wrote `conditions` are left out.
    """
    for path in sorted(RESULTS.glob(PATTERN), key=_modified, reverse=True):
        if measured := _of_result(path, _modified(path)):
            yield measured


@cache
def _of_result(path: Path, changed: float) -> Measured | None:
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


def _nearest(
    config: Config, ranks: int, device: str, measurements: Iterable[Measured]
) -> Measured | None:
    """The first measurement of the same network and device, if possible on as many ranks."""
    fitting = [
        measured
        for measured in measurements
        if (
            measured.device == device
            or (device in (A_GPU, A_CPU) and is_gpu(measured.device) == is_gpu(device))
        )
        and measured.network == network(config, measured.device)
    ]
    return min(fitting, key=lambda measured: measured.ranks != ranks, default=None)


# ------------------------------------------------------------------------------------------- texts


def _images(config: Config) -> int:
    """Images of all epochs."""
    from patchmill.loaders.sources import open_data

    train = config.train
    if config.data.steps is None:
        samples = open_data(config.data.train).sample_count
    else:
        samples = None  # a number of batches is for streams, which need not be opened
    return steps_per_epoch(config, samples) * train.batch_size * train.epochs


def _reasons(
    config: Config, ranks: int, measured: Measured, images: int, rate: float
) -> Iterator[str]:
    yield (f"{images:,} images at {rate:,.4g} a second on {measured.device}, as in {measured.what}")
    if measured.ranks != ranks:
        yield (
            f"assumed that {ranks} rank{'s' * (ranks != 1)} and its {measured.ranks} are equally "
            "fast each"
        )
    local, there = config.train.batch_size / ranks, measured.batch_size / measured.ranks
    if local != there:
        yield f"measured with {there:g} images of a rank in a step, not {local:g}"
    if measured.data != config.data.name:
        yield f"measured on {measured.data}, which may load faster or slower"
    yield "evaluations and checkpoints take more"


def _advice(config: Config, ranks: int, device: str, words: Sequence[str]) -> str:
    """How to measure one rank of the run."""
    settings = [word for word in words if not word.startswith(("name=", "out="))]
    if ranks > 1:
        settings.append(f"train.batch_size={config.train.batch_size // ranks}")
    file = f"benchmarks/results/training-{config.method_name}-{config.data.name}.json"
    command = ["python", "benchmarks/training.py", *settings, "--peers", "", "--json", file]
    return (
        f"nothing like it was measured on {device}; to measure it, in minutes: "
        f"{shlex.join(command)}"
    )


def _has_fraction(value: Any) -> bool:
    return isinstance(value, float) or (
        isinstance(value, list | tuple) and any(map(_has_fraction, value))
    )


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
