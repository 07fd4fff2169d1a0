"""Count the tests selected by steps, as JSON: without some modules, and with all of this machine.

python tests/benchmarks/gpu_day/helpers_gpu_day.py OUT HIDDEN,... STEP,... STEP,...

The renderer is also timed without the modules, into OUT.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path[0] = str(ROOT)


class Hidden:
    """Import hook that makes modules missing."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.names or name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class Selected:
    """Counts selected tests, and files that cannot be imported."""

    def __init__(self) -> None:
        self.count, self.problems = 0, list[str]()

    def pytest_collection_finish(self, session: Any) -> None:
        self.count = len(session.items)

    def pytest_collectreport(self, report: Any) -> None:
        if report.outcome == "failed":
            self.problems.append(f"{report.nodeid}: {str(report.longrepr)[-300:]}")


def main(out: str, hidden: str, bare: str, whole: str) -> None:
    """Two processes that share their imports until one hides modules."""
    import pytest  # noqa: F401
    import torch  # noqa: F401

    if child := os.fork():
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit("the bare machine's steps failed")
        print(json.dumps(select(whole.split(","))))
        return
    sys.meta_path.insert(0, Hidden(set(hidden.split(","))))  # type: ignore[arg-type]
    print(json.dumps(select(bare.split(","))))
    from patchmill.benchmarks import kernels

    argv = ["views", "--device", "cpu", "--batch-size", "1", "--rounds", "1", "--json", out]
    kernels.main(argv)


def select(names: list[str]) -> dict[str, Any]:
    import pytest

    from patchmill.benchmarks.lib.gpu_day.step import PYTEST
    from patchmill.benchmarks.lib.gpu_day.steps import STEPS

    found = {}
    for step in (step for step in STEPS if step.name in names):
        selected, arguments = (
            Selected(),
            [*PYTEST, "--collect-only", "--assert=plain", *step.arguments],
        )
        with contextlib.redirect_stdout(io.StringIO()):
            pytest.main(arguments, plugins=[selected])
        found[step.name] = {"count": selected.count, "problems": selected.problems}
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
