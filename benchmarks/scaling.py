"""How training grows with processes: measured here, and from that predicted for many nodes.

    python benchmarks/scaling.py [method=M key=value ...] [--processes 1,2] [--nodes 1,8,...,512]
        [--network GB/s] [--store GB/s] [--step-rate R] [--throughput FILE] [--training FILE]
        [--measured FILE] [--json FILE] [--plot FILE.png]

So many processes of this machine load, compute and train, each with as much as one alone: by gloo
on CPUs, by NCCL on GPUs. Then formulas (scaling_model.py) say what a cluster of such ranks does,
and what it waits for. What goes into them is measured, or comes from files that benchmarks wrote,
or is said by an option; the network and the store are assumed unless they are said. All is printed.

--measured FILE predicts from what an earlier --json FILE of this benchmark holds, and measures
nothing.
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
from patchmill.benchmarks.lib.scaling.inputs import ASSUMED, KNOWN
from patchmill.benchmarks.lib.scaling.measure import Asked, Measured
from patchmill.loaders.common.errors import MillError, run_command

USUAL = ("method=moco", "scale=demo", "size=64", "data.train=scenes(count=256, size=256)")
BATCH = 32
NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def main(arguments: Sequence[str] | None = None) -> None:
    given = _given(arguments)
    report.check_writable(given.json, given.plot)
    if given.plot:
        report.check_chart()
    measured = _read(Path(given.measured)) if given.measured else _measure(given)
    inputs = scaling_inputs.found(given, measured[0])
    cluster = scaling_inputs.cluster(inputs)
    predicted = [model.predict(cluster, nodes) for nodes in given.nodes]
    table.show(measured, inputs, predicted)
    if given.json:
        report.write_json(
            given.json,
            {
                "settings": given.words,
                "rows": table.rows(measured),
                "measured": [it.as_json() for it in measured],
                "inputs": {name: it._asdict() for name, it in inputs.items()},
                "predicted": [it.as_json() for it in predicted],
            },
        )
    if given.plot:
        from patchmill.benchmarks.lib.scaling import chart

        chart.draw(given.plot, measured, predicted, cluster)


def _measure(given: Namespace) -> list[Measured]:
    from patchmill.benchmarks.lib.scaling import measure

    batch = given.batch or BATCH
    asked = Asked(given.words, batch, given.workers, given.steps, given.seconds, given.rounds)
    return measure.run(asked, given.processes)


def _read(path: Path) -> list[Measured]:
    try:
        return [Measured(**it) for it in json.loads(path.read_text())["measured"]]
    except OSError as error:
        raise MillError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise MillError(
            f"{path} holds nothing that was measured: make one with python benchmarks/scaling.py "
            "--json FILE"
        ) from None


# -------------------------------------------------------------------------------------- the command


def _given(arguments: Sequence[str] | None) -> Namespace:
    parser = report.Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="key=value", help=f"or else {' '.join(USUAL)}")
    parser.add_argument("--processes", help="that are measured; 1, 2, ... up to cores or GPUs")
    parser.add_argument("--batch", type=int, help="images of a rank in a step (32)")
    parser.add_argument("--workers", type=int, default=1, help="of its loader (%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="of a turn (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of loading (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of turns (%(default)s)")
    parser.add_argument("--measured", metavar="FILE", help="of an earlier --json: measure nothing")
    parser.add_argument("--nodes", default=",".join(map(str, NODES)), help="(%(default)s)")
    parser.add_argument("--ranks", type=int, help="of a node; as the cluster's profile says")
    parser.add_argument("--cores", type=int, help="of a rank, to load; as the profile says")
    parser.add_argument("--throughput", metavar="FILE", help="of throughput.py: for the loader")
    parser.add_argument("--training", metavar="FILE", help="of training.py: for the computing")
    for name, (_, about) in KNOWN.items():
        parser.add_argument(f"--{name}", type=float, metavar="X", help=f"{about}; else measured")
    for name, (usual, _, about) in ASSUMED.items():
        parser.add_argument(
            f"--{name}", type=float, metavar="X", help=f"{about} (assumed: {usual:g})"
        )
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the results")
    given = parser.parse_intermixed_args(arguments)
    given.words = given.words or list(USUAL)
    given.nodes = _numbers("nodes", given.nodes)
    given.processes = _numbers("processes", given.processes or _processes())
    if given.processes[0] != 1:
        raise MillError("--processes must begin with 1: the others are compared with it")
    for name in ("batch", "workers", "steps", "seconds", "rounds", "ranks", "cores"):
        _check_positive(given, name)
    for name in (*KNOWN, *ASSUMED):
        _check_positive(given, name, least=0.0 if name == "overlap" else None)
    if given.overlap is not None and given.overlap > 1:
        raise MillError(f"--overlap is a share of the computing, 0 to 1, not {given.overlap:g}")
    return given


def _check_positive(given: Namespace, name: str, least: float | None = None) -> None:
    value: Any = getattr(given, name.replace("-", "_"))
    if value is None or value > 0 or value == least:
        return
    raise MillError(f"--{name} must be above 0, not {value:g}")


def _numbers(name: str, text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise MillError(f"cannot read --{name} {text!r}: write numbers above 0, as in 1,2,4")
    return sorted({int(word) for word in words})


def _processes() -> str:
    """Powers of two, up to what is here."""
    import torch

    from patchmill.benchmarks.lib import machine

    most = torch.cuda.device_count() or machine.cores()
    return ",".join(str(1 << power) for power in range(most.bit_length()))


if __name__ == "__main__":
    run_command(main)
