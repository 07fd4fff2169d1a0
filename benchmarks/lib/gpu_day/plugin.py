"""pytest plugin: selects one process's share of the tests, and writes each outcome immediately.

Outcomes are written as they occur, because a run may be stopped halfway.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from patchmill.benchmarks.lib.gpu_day.outcomes import FILE, SHARD


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    number, _, count = os.environ.get(SHARD, "0/1").partition("/")
    others = [item for i, item in enumerate(items) if i % int(count) != int(number)]
    items[:] = items[int(number) :: int(count)]
    if others:
        config.hook.pytest_deselected(items=others)


def pytest_runtest_logreport(report: Any) -> None:
    """One line per test; setup and teardown only if they did not pass."""
    if report.when == "call" or report.outcome != "passed":
        _write(report)


def pytest_collectreport(report: Any) -> None:
    if report.outcome == "failed" and os.environ.get(SHARD, "0/1").startswith("0/"):
        _write(report)


def _write(report: Any) -> None:
    if FILE not in os.environ:
        return
    seconds = round(getattr(report, "duration", 0.0), 2)
    row = {"test": report.nodeid, "outcome": report.outcome, "seconds": seconds}
    with open(os.environ[FILE], "a") as file:
        file.write(json.dumps(row | {"reason": _reason(report)}) + "\n")


def _reason(report: Any) -> str:
    """Why a test was skipped, or the error it ended with."""
    if report.outcome == "passed":
        return ""
    if isinstance(report.longrepr, tuple):  # file, line, reason
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    text = str(report.longrepr)
    errors = [line[1:] for line in text.splitlines() if line.startswith("E  ")]
    return " ".join((errors or text[-300:].splitlines() or [""])[0].split())[:300]
