"""Write the report of a run again: python -m patchmill.training.report DIR"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from patchmill.loaders.common.errors import run_command
from patchmill.training import report


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m patchmill.training.report",
        description="Write the report of a run, finished or not, from what its folder holds.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the run's folder: runs/NAME")
    print(report.write(parser.parse_args(arguments).folder))


if __name__ == "__main__":
    run_command(main)
