"""Inputs of the prediction: measured, read from result files, given by options, or assumed."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from patchmill.benchmarks.lib.scaling.measure import COMPUTING, LOADING, ScalingResult
from patchmill.benchmarks.lib.scaling.model import Cluster
from patchmill.loaders.common.errors import MillError

CACHED = "cached batches"  # the row of training.py that never waits for data
ASSUMPTION = "assumed"
THROUGHPUT, TRAINING = "benchmarks/throughput.py", "benchmarks/training.py"

# Option -> its unit in bytes, seconds or images, and its meaning; measured unless given.
MEASURED_INPUTS: dict[str, tuple[float, str]] = {
    "loader-rate": (1.0, "images/s of a rank's loader"),
    "step-rate": (1.0, "images/s of a rank's compute"),
    "gradient": (1e6, "MB of gradients"),
    "image": (1e3, "kB per image in the store"),
}
# Option -> default, unit and meaning of inputs that cannot be measured here.
ASSUMED_INPUTS: dict[str, tuple[float, float, str]] = {
    "network": (25.0, 1e9, "GB/s between a node and the others, each way"),
    "latency": (5.0, 1e-6, "µs latency of a message between two nodes"),
    "inside": (100.0, 1e9, "GB/s between two ranks of a node, each way"),
    "overlap": (0.5, 1.0, "share of a step's compute that can hide the gradient exchange"),
    "store": (100.0, 1e9, "GB/s from the store to all nodes"),
    "link": (10.0, 1e9, "GB/s from the store to one node"),
}


class ModelInput(NamedTuple):
    value: float  # in the option's unit
    about: str
    origin: str  # printed next to the value


def collect(options: Namespace, alone: ScalingResult) -> dict[str, ModelInput]:
    """Option -> input; `alone` is the measurement of one process.

    Options override result files, which override measurements.
    """
    origins, ranks, cores = _node(options)
    defaults = _from_measurement(alone, cores) | _from_files(options, cores)
    batch, origin = defaults["batch"] if options.batch is None else (options.batch, "--batch")
    inputs = {
        "ranks": ModelInput(ranks, "ranks per node", origins["ranks"]),
        "cores": ModelInput(cores, "cores per rank, for its loader", origins["cores"]),
        "batch": ModelInput(batch, "images per rank and step", origin),
    }
    for name, (_, about) in MEASURED_INPUTS.items():
        option = getattr(options, name.replace("-", "_"))
        value, origin = defaults[name] if option is None else (option, f"--{name}")
        inputs[name] = ModelInput(value, about, origin)
    for name, (assumed, _, about) in ASSUMED_INPUTS.items():
        option = getattr(options, name)
        value, origin = (assumed, ASSUMPTION) if option is None else (option, f"--{name}")
        inputs[name] = ModelInput(value, about, origin)
    return inputs


def cluster(inputs: Mapping[str, ModelInput]) -> Cluster:
    """Convert the inputs to bytes, seconds and images."""
    units = {name: unit for name, (unit, _) in MEASURED_INPUTS.items()}
    units |= {name: unit for name, (_, unit, _) in ASSUMED_INPUTS.items()}
    value = {name: entry.value * units.get(name, 1) for name, entry in inputs.items()}
    ranks, batch = int(value["ranks"]), int(value["batch"])
    return Cluster(
        ranks=ranks,
        loader=ranks * value["loader-rate"],
        batch=batch,
        step=batch / value["step-rate"],
        **{name: value[name] for name in ("gradient", "image", *ASSUMED_INPUTS)},
    )


def _node(options: Namespace) -> tuple[dict[str, str], int, int]:
    """Origins of ranks and cores, ranks per node, cores per rank."""
    from patchmill.cluster import resources

    needs = resources.load({})
    origins = {name: "the cluster's profile" for name in ("ranks", "cores")}
    origins |= {name: f"--{name}" for name in origins if getattr(options, name) is not None}
    return origins, options.ranks or needs.tasks, options.cores or needs.cpus_per_task


def _from_measurement(alone: ScalingResult, cores: int) -> dict[str, tuple[float, str]]:
    loader_rate, origin = alone.rate(LOADING).median, f"measured on a {alone.device.upper()}"
    loader_origin = origin
    if alone.device == "cpu":  # workers decode on the CPU, so that the rate grows with the cores
        loader_rate *= cores / alone.workers
        loader_origin = f"{origin}, by {alone.workers} of {cores} cores"
    return {
        "loader-rate": (loader_rate, loader_origin),
        "batch": (alone.batch, origin),
        "step-rate": (alone.rate(COMPUTING).median, origin),
        "gradient": (alone.gradient / 1e6, origin),
        "image": (alone.image / 1e3, origin),
    }


def _from_files(options: Namespace, cores: int) -> dict[str, tuple[float, str]]:
    from patchmill.cluster import job_plan

    inputs = {}
    if options.throughput:
        path = Path(options.throughput)
        rate = job_plan.read_loader_rate(path).of_node(1, cores)
        inputs["loader-rate"] = rate, path.name
        inputs["image"] = (
            _read_number(path, THROUGHPUT, lambda c: c["images"]["kilobytes"]),
            path.name,
        )
    if options.training:
        path = Path(options.training)
        inputs["step-rate"] = _read_number(path, TRAINING, _ceiling_rate), path.name
        inputs["batch"] = _read_number(path, TRAINING, lambda c: c["batch_size"]), path.name
    return inputs


def _ceiling_rate(content: dict[str, Any]) -> float:
    return next(row["images_per_s"] for row in content["rows"] if row["name"] == CACHED)


def _read_number(path: Path, benchmark: str, lookup: Callable[[dict[str, Any]], float]) -> float:
    try:
        return float(lookup(json.loads(path.read_text())))
    except OSError as error:
        raise MillError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, StopIteration):
        raise MillError(
            f"{path} is not a result of {benchmark}: write one with python {benchmark} --json FILE"
        ) from None
