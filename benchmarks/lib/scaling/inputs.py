"""What a prediction goes by, and where each number comes from."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from patchmill.benchmarks.lib.scaling.measure import COMPUTING, LOADING, Measured
from patchmill.benchmarks.lib.scaling.model import Cluster
from patchmill.loaders.common.errors import MillError

CACHED = "cached batches"  # the row of training.py's files that waits for no data
ASSUMPTION = "assumed"

# Option -> its unit, in bytes, seconds or images; and what it says. Measured, unless it is given.
KNOWN: dict[str, tuple[float, str]] = {
    "loader-rate": (1.0, "images/s that the loader of a rank makes"),
    "step-rate": (1.0, "images/s that a rank computes"),
    "gradient": (1e6, "MB of gradients"),
    "image": (1e3, "kB of an image in the store"),
}
# The same of what cannot be measured here, with what is assumed before all.
ASSUMED: dict[str, tuple[float, float, str]] = {
    "network": (25.0, 1e9, "GB/s between a node and the others, each way"),
    "latency": (5.0, 1e-6, "µs of a message between two nodes"),
    "inside": (100.0, 1e9, "GB/s between two ranks of a node, each way"),
    "overlap": (0.5, 1.0, "of a step's computing, the share that hides the exchange"),
    "store": (100.0, 1e9, "GB/s of the store to all nodes"),
    "link": (10.0, 1e9, "GB/s of the store to one node"),
}


class Known(NamedTuple):
    value: float  # in the option's unit
    about: str
    origin: str


def found(given: Namespace, alone: Measured) -> dict[str, Known]:
    """Option -> what holds; `alone` is what was measured of one process."""
    profile, ranks, cores = _node(given)
    told = _measured(alone, cores) | _of_files(given, cores)
    batch, origin = told["batch"] if given.batch is None else (given.batch, "--batch")
    made = {
        "ranks": Known(ranks, "ranks of a node", profile["ranks"]),
        "cores": Known(cores, "cores of a rank, to load", profile["cores"]),
        "batch": Known(batch, "images of a rank in a step", origin),
    }
    for name, (_, about) in KNOWN.items():
        own = getattr(given, name.replace("-", "_"))
        value, origin = told[name] if own is None else (own, f"--{name}")
        made[name] = Known(value, about, origin)
    for name, (usual, _, about) in ASSUMED.items():
        own = getattr(given, name)
        value, origin = (usual, ASSUMPTION) if own is None else (own, f"--{name}")
        made[name] = Known(value, about, origin)
    return made


def cluster(inputs: Mapping[str, Known]) -> Cluster:
    units = {name: it[-2] for name, it in (KNOWN | ASSUMED).items()}  # type: ignore[operator]
    value = {name: it.value * units.get(name, 1) for name, it in inputs.items()}
    ranks, batch = int(value["ranks"]), int(value["batch"])
    return Cluster(
        ranks=ranks,
        loader=ranks * value["loader-rate"],
        batch=batch,
        step=batch / value["step-rate"],
        **{name: value[name] for name in ("gradient", "image", *ASSUMED)},
    )


def _node(given: Namespace) -> tuple[dict[str, str], int, int]:
    from patchmill.cluster import resources

    needs = resources.load({})
    said = {name: "the cluster's profile" for name in ("ranks", "cores")}
    said |= {name: f"--{name}" for name in said if getattr(given, name) is not None}
    return said, given.ranks or needs.tasks, given.cores or needs.cpus_per_task


def _measured(alone: Measured, cores: int) -> dict[str, tuple[float, str]]:
    loads, here = alone.rate(LOADING).median, f"measured on a {alone.device.upper()}"
    by = here
    if alone.device == "cpu":  # whose workers decode: more of them decode more
        loads *= cores / alone.workers
        by = f"{here}, by {alone.workers} of {cores} cores"
    return {
        "loader-rate": (loads, by),
        "batch": (alone.batch, here),
        "step-rate": (alone.rate(COMPUTING).median, here),
        "gradient": (alone.gradient / 1e6, here),
        "image": (alone.image / 1e3, here),
    }


def _of_files(given: Namespace, cores: int) -> dict[str, tuple[float, str]]:
    from patchmill.cluster import job_plan

    told = {}
    if given.throughput:
        path = Path(given.throughput)
        rate = job_plan.read_loader_rate(path).of_node(1, cores)
        told["loader-rate"] = rate, path.name
        told["image"] = _of(path, lambda it: it["images"]["kilobytes"]), path.name
    if given.training:
        path = Path(given.training)
        told["step-rate"] = _of(path, _cached), path.name
        told["batch"] = _of(path, lambda it: it["batch_size"]), path.name
    return told


def _cached(content: dict[str, Any]) -> float:
    return next(row["images_per_s"] for row in content["rows"] if row["name"] == CACHED)


def _of(path: Path, look: Any) -> float:
    try:
        return float(look(json.loads(path.read_text())))
    except OSError as error:
        raise MillError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, StopIteration):
        raise MillError(f"{path} does not hold what its benchmark writes by --json") from None
