"""Rewrite the report of a run: patchmill report DIR"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchmill.loaders.common.arguments import Parser
from patchmill.loaders.common.errors import run_command
from patchmill.loaders.common.printed import say


def main(arguments: Sequence[str] | None = None) -> None:
    folder = parser().parse_args(arguments).folder
    from patchmill.training import report

    say(report.write(folder))


def parser() -> Parser:
    options = Parser(
        "patchmill report",
        "DIR",
        "Write the report of a run, finished or not, from the contents of its folder.",
        ["patchmill report runs/dilo-scenes-demo"],
    )
    options.add_argument("folder", metavar="DIR", type=Path, help="the run's folder: runs/NAME")
    return options


if __name__ == "__main__":
    run_command(main)
