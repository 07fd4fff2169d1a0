"""Measure how training scales with processes, and predict it for many nodes.

    python benchmarks/scaling.py [method=M key=value ...] [--processes 1,2] [--nodes 1,8,...,512]
        [--network GB/s] [--store GB/s] [--step-rate R] [--throughput FILE] [--training FILE]
        [--measured FILE] [--json FILE] [--plot FILE.png]

Several processes on this machine load, compute and train with the same work per process: over gloo
on CPUs, over NCCL on GPUs. A model (lib/scaling/model.py) then predicts the rate of a cluster of
such ranks, and its bottleneck. Its inputs are measured, read from the result files of other
benchmarks, or given by options; network and storage are assumed unless given. All inputs are
printed.

--measured FILE predicts from an earlier --json FILE of this benchmark, without measuring.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib import report
from patchmill.benchmarks.lib.scaling import inputs as scaling_inputs
from patchmill.benchmarks.lib.scaling import model, table
from patchmill.benchmarks.lib.scaling.inputs import ASSUMED_INPUTS, MEASURED_INPUTS
from patchmill.benchmarks.lib.scaling.measure import ScalingResult, Workload
from patchmill.loaders.common.errors import MillError, run_command

DEFAULTS = ("method=moco", "scale=demo", "size=64", "data.train=scenes(count=256, size=256)")
BATCH = 32
NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    report.check_writable(options.json, options.plot)
    if options.plot:
        report.check_chart()
    measured = _read(Path(options.measured)) if options.measured else _measure(options)
    inputs = scaling_inputs.collect(options, measured[0])
    cluster = scaling_inputs.cluster(inputs)
    predicted = [model.predict(cluster, nodes) for nodes in options.nodes]
    table.show(measured, inputs, predicted)
    if options.json:
        report.write_json(
            options.json,
            {
                "settings": options.overrides,
                "rows": table.rows(measured),
                "measured": [result.as_json() for result in measured],
                "inputs": {name: entry._asdict() for name, entry in inputs.items()},
                "predicted": [prediction.as_json() for prediction in predicted],
            },
        )
    if options.plot:
        from patchmill.benchmarks.lib.scaling import chart

        chart.draw(options.plot, measured, predicted, cluster)


def _measure(options: Namespace) -> list[ScalingResult]:
    from patchmill.benchmarks.lib.scaling import measure

    batch = options.batch or BATCH
    workload = Workload(
        options.overrides, batch, options.workers, options.steps, options.seconds, options.rounds
    )
    return measure.run(workload, options.processes)


def _read(path: Path) -> list[ScalingResult]:
    try:
        return [ScalingResult(**entry) for entry in json.loads(path.read_text())["measured"]]
    except OSError as error:
        raise MillError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise MillError(
            f"{path} holds no measurements: write it with patchmill bench scaling --json FILE"
        ) from None


# -------------------------------------------------------------------------------------- the command


def _options(arguments: Sequence[str] | None) -> Namespace:
    parser = report.Parser("scaling", __doc__, "[key=value ...]")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help=f"default: {' '.join(DEFAULTS)}"
    )
    parser.add_argument(
        "--processes",
        help="numbers of processes; default: 1, 2, 4, ... up to the number of GPUs or cores",
    )
    parser.add_argument("--batch", type=int, help="images per rank and step (32)")
    parser.add_argument(
        "--workers", type=int, default=1, help="loader workers per rank (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=10, help="steps per round (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="seconds of loading per round (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (%(default)s)")
    parser.add_argument(
        "--measured", metavar="FILE", help="an earlier --json FILE; nothing is measured"
    )
    parser.add_argument(
        "--nodes",
        default=",".join(map(str, NODES)),
        help="numbers of nodes to predict (%(default)s)",
    )
    parser.add_argument("--ranks", type=int, help="ranks per node; default: the cluster's profile")
    parser.add_argument(
        "--cores", type=int, help="cores per rank, for its loader; default: the cluster's profile"
    )
    parser.add_argument(
        "--throughput", metavar="FILE", help="result of throughput.py, for the loader's rate"
    )
    parser.add_argument(
        "--training", metavar="FILE", help="result of training.py, for the compute rate"
    )
    for name, (_, about) in MEASURED_INPUTS.items():
        parser.add_argument(
            f"--{name}", type=float, metavar="X", help=f"{about} (default: measured)"
        )
    for name, (assumed, _, about) in ASSUMED_INPUTS.items():
        parser.add_argument(
            f"--{name}", type=float, metavar="X", help=f"{about} (assumed: {assumed:g})"
        )
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the results")
    options = parser.parse_intermixed_args(arguments)
    options.overrides = options.overrides or list(DEFAULTS)
    options.nodes = _numbers("nodes", options.nodes)
    options.processes = _numbers("processes", options.processes or _processes())
    if options.processes[0] != 1:
        raise MillError("--processes must begin with 1: speed-ups are relative to it")
    for name in ("batch", "workers", "steps", "seconds", "rounds", "ranks", "cores"):
        _check_positive(options, name)
    for name in (*MEASURED_INPUTS, *ASSUMED_INPUTS):
        _check_positive(options, name, least=0.0 if name == "overlap" else None)
    if options.overlap is not None and options.overlap > 1:
        raise MillError(
            f"--overlap is a share of the compute time, 0 to 1, not {options.overlap:g}"
        )
    return options


def _check_positive(options: Namespace, name: str, least: float | None = None) -> None:
    value: Any = getattr(options, name.replace("-", "_"))
    if value is None or value > 0 or value == least:
        return
    raise MillError(f"--{name} must be above 0, not {value:g}")


def _numbers(name: str, text: str) -> list[int]:
    counts = [count.strip() for count in text.split(",")]
    if not all(count.isdecimal() and int(count) for count in counts):
        raise MillError(f"cannot read --{name} {text!r}: write numbers above 0, as in 1,2,4")
    return sorted({int(count) for count in counts})


def _processes() -> str:
    """Powers of two up to the number of GPUs, or of cores without a GPU."""
    import torch

    from patchmill.benchmarks.lib import machine

    maximum = torch.cuda.device_count() or machine.cores()
    return ",".join(str(1 << power) for power in range(maximum.bit_length()))


if __name__ == "__main__":
    run_command(main)
