"""How fast training is from end to end, and how much of it waits for data.

    python benchmarks/training.py [method=M data=D key=value ...] [--peers torchvision] [--steps N]
        [--rounds N] [--json FILE] [--plot FILE.png]

Settings are those of training/run.py; without any, a small network learns from made-up scenes. The
same networks take the same steps of training's own loop on three feeds in turns: batches that lie
in memory, made once (the ceiling); the project's loader; and torchvision's transforms in a
DataLoader of as many workers. Not counted: compilation, start-up, what lay ready in queues,
checkpoints and evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError, run_command
from patchmill.script import idle_threads_sleep

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config

USUAL = ("method=moco", "scale=demo", "size=64", "data.train=scenes:1024")
PEERS = ("torchvision",)


@dataclass(frozen=True)
class Asked:
    words: list[str]  # settings of training
    peers: list[str]
    steps: int
    rounds: int
    json: str | None
    plot: str | None


def main() -> None:
    from patchmill.benchmarks.lib import report
    from patchmill.benchmarks.lib.training import measure, table
    from patchmill.training.config import compose

    asked = _asked()
    report.check_writable(asked.json, asked.plot)
    if asked.plot:
        report.check_chart()
    config = compose.compose(asked.words)
    result = measure.run(config, asked.peers, asked.steps, asked.rounds)
    table.show(result, _headline(config, asked))
    if asked.json:
        about = {"settings": asked.words, "batch_size": config.train.batch_size}
        report.write_json(asked.json, about | result.as_json())
    if asked.plot:
        report.draw_chart(asked.plot, result.bars(), _what(config))


def _headline(config: Config, asked: Asked) -> list[str]:
    return [
        _what(config),
        f"settings: {' '.join(asked.words)}",
        f"in turns: medians and middle halves of {asked.rounds} rounds",
    ]


def _what(config: Config) -> str:
    batch, model = config.train.batch_size, config.model.name
    return f"{config.method_name}, {model}, {config.size} pixels, batches of {batch}"


def _asked() -> Asked:
    from patchmill.benchmarks.lib.report import Parser
    from patchmill.loaders.common.calls import nearest

    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="key=value", help=f"or else {' '.join(USUAL)}")
    parser.add_argument(
        "--peers", default=",".join(PEERS), help="'' to leave torchvision out (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=10, help="in a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of turns (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the results as bars")
    given = vars(parser.parse_intermixed_args())
    for name in ("steps", "rounds"):
        if given[name] < 1:
            raise MillError(f"--{name} must be 1 or more, not {given[name]}")
    given["peers"] = [name.strip() for name in given["peers"].split(",") if name.strip()]
    for name in given["peers"]:
        if name not in PEERS:
            raise MillError(f"there is no peer {name!r}{nearest(name, dict.fromkeys(PEERS))}")
    return Asked(**given | {"words": given["words"] or list(USUAL)})


if __name__ == "__main__":
    idle_threads_sleep()
    run_command(main)
