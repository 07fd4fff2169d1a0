"""Count what steps of tests select, as JSON; in a process of its own, which hides modules.

python tests/benchmarks/helpers_gpu_day.py HIDDEN[,HIDDEN ...] STEP ...
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)


class Hidden:
    """Makes modules missing."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.names or name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class Selected:
    """Counts tests that are selected, and files that cannot be imported."""

    def __init__(self) -> None:
        self.count, self.problems = 0, list[str]()

    def pytest_collection_finish(self, session: Any) -> None:
        self.count = len(session.items)

    def pytest_collectreport(self, report: Any) -> None:
        if report.outcome == "failed":
            self.problems.append(f"{report.nodeid}: {str(report.longrepr)[-300:]}")


def main(hidden: str, *names: str) -> None:
    sys.meta_path.insert(0, Hidden(set(filter(None, hidden.split(",")))))  # type: ignore[arg-type]
    import pytest

    from patchmill.benchmarks.lib.gpu_day.steps import PYTEST, STEPS

    found = {}
    for step in (step for step in STEPS if step.name in names):
        selected, words = Selected(), [*PYTEST, "--collect-only", *step.words]
        with contextlib.redirect_stdout(io.StringIO()):
            pytest.main(words, plugins=[selected])
        found[step.name] = {"count": selected.count, "problems": selected.problems}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
