"""Measure end-to-end training throughput and the share of time spent waiting for data.

    python benchmarks/training.py [method=M data=D key=value ...] [--peers torchvision] [--steps N]
        [--rounds N] [--json FILE] [--plot FILE.png]

Settings are those of training/run.py; the default is a small network on synthetic scenes. The same
networks train in the training engine on three feeds in turns: a few cached batches (the ceiling:
throughput if data were free); our loader; and torchvision's transforms in a DataLoader with as many
workers. Compilation, start-up, batches queued beforehand, checkpoints and evaluation are not
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError, run_command
from patchmill.script import idle_threads_sleep

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config

DEFAULTS = ("method=moco", "scale=demo", "size=64", "data.train=scenes:1024")
PEERS = ("torchvision",)


@dataclass(frozen=True)
class TrainingOptions:
    overrides: list[str]  # settings of training, as key=value
    peers: list[str]
    steps: int
    rounds: int
    json: str | None
    plot: str | None


def main(argv: Sequence[str] | None = None) -> None:
    from patchmill.benchmarks.lib import report
    from patchmill.benchmarks.lib.training import measure, table
    from patchmill.training import expected_hours, measurements
    from patchmill.training.config import compose

    options = _options(argv)
    report.check_writable(options.json, options.plot)
    if options.plot:
        report.check_chart()
    config = compose.compose(options.overrides)
    result = measure.run(config, options.peers, options.steps, options.rounds)
    table.show(result, _headline(config, options))
    if options.json:
        about = {
            "settings": options.overrides,
            "batch_size": config.train.batch_size,
            "conditions": measurements.conditions(config, expected_hours.this_device(config)),
        }
        report.write_json(options.json, about | result.as_json())
    if options.plot:
        report.draw_chart(options.plot, result.chart_rows(), _description(config))


def _headline(config: Config, options: TrainingOptions) -> list[str]:
    return [
        _description(config),
        f"settings: {' '.join(options.overrides)}",
        f"medians and quartiles of {options.rounds} interleaved rounds",
    ]


def _description(config: Config) -> str:
    batch, model = config.train.batch_size, config.model.name
    return f"{config.method_name}, {model}, {config.size} pixels, batches of {batch}"


def _options(argv: Sequence[str] | None) -> TrainingOptions:
    from patchmill.benchmarks.lib.report import Parser
    from patchmill.loaders.common.calls import nearest

    parser = Parser("training", __doc__, "[key=value ...]")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help=f"default: {' '.join(DEFAULTS)}"
    )
    parser.add_argument(
        "--peers", default=",".join(PEERS), help="'' to skip torchvision (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=10, help="steps per round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the results as bars")
    arguments = vars(parser.parse_intermixed_args(argv))
    for name in ("steps", "rounds"):
        if arguments[name] < 1:
            raise MillError(f"--{name} must be 1 or more, not {arguments[name]}")
    arguments["peers"] = [name.strip() for name in arguments["peers"].split(",") if name.strip()]
    for name in arguments["peers"]:
        if name not in PEERS:
            raise MillError(f"there is no peer {name!r}{nearest(name, dict.fromkeys(PEERS))}")
    return TrainingOptions(**arguments | {"overrides": arguments["overrides"] or list(DEFAULTS)})


if __name__ == "__main__":
    idle_threads_sleep()
    run_command(main)
