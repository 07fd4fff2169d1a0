"""Record of how each step of a run ended; written after each step, and read by --resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from patchmill.benchmarks.lib.gpu_day import outcomes
from patchmill.benchmarks.lib.gpu_day.step import Step
from patchmill.benchmarks.lib.process_group import Ended
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import write_atomic

FILE = "gpu-day.json"

State = Literal["held", "failed", "out of time", "interrupted", "not reached", "left out"]
FINAL: tuple[State, ...] = ("held", "failed", "out of time")  # not run again by --resume
REASONS = 5  # failed tests to name


@dataclass(frozen=True)
class Entry:
    """Outcome of a step, and the reason."""

    state: State
    why: str = ""
    seconds: float = 0.0
    limit: float = 0.0
    estimate: float = 0.0
    status: int | None = None
    tests: dict[str, int] = field(default_factory=dict)  # outcome -> count
    failures: list[str] = field(default_factory=list)
    rehearsed: bool = False  # on a CPU: no evidence about a GPU


def read(out: Path) -> dict[str, Entry]:
    """Entries of an earlier run; empty if there was none."""
    path = out / FILE
    try:
        content = json.loads(path.read_text())
        return {name: Entry(**entry) for name, entry in content["steps"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MillError(
            f"cannot continue from {path}: {' '.join(str(error).split())}; remove it to start over"
        ) from None


def write(out: Path, entries: Mapping[str, Entry], about: Mapping[str, Any]) -> None:
    steps = {name: asdict(entry) for name, entry in entries.items()}
    write_atomic(out / FILE, json.dumps({**about, "steps": steps}, indent=1) + "\n")


def judge(step: Step, ended: Ended, out: Path, limit: float, estimate: float) -> Entry:
    """Judge a step by its exit status and results."""
    found = outcomes.read(step.result(out)) if step.writes == "tests" else []
    counts = outcomes.counts(found)
    failures = [
        f"{each['test'].rpartition('/')[2]}: {each['reason']}"
        for each in found
        if each["outcome"] == "failed"
    ]
    state, why = _verdict(step, ended, out, counts, found)
    seconds = round(ended.seconds, 1)
    return Entry(
        state, why, seconds, round(limit), round(estimate), ended.status, counts, failures[:REASONS]
    )


def _verdict(
    step: Step, ended: Ended, out: Path, counts: Mapping[str, int], found: list[dict[str, Any]]
) -> tuple[State, str]:
    tests = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    if not ended.in_time:
        return "out of time", f"stopped after {ended.seconds:.0f} s" + (f"; {tests}" * bool(tests))
    if counts.get("failed"):
        return "failed", tests
    if ended.status:
        said = _last_line(out / f"{step.name}.log")
        return "failed", f"exit status {ended.status}" + (f": {said}" * bool(said))
    if step.writes == "tests" and not counts.get("passed"):
        reasons = {each["reason"] for each in found if each["reason"]}
        return "left out", f"{tests or 'no test'}: {'; '.join(sorted(reasons)[:2])}".rstrip(": ")
    if step.writes == "json" and not step.result(out).exists():
        return "failed", "it ended without a result"
    return "held", tests


def _last_line(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError:
        return ""
    lines = [line for line in lines if line and not line.startswith("$ ")]
    errors = [line for line in lines if "Error" in line or line.startswith("error: ")]
    return (errors or lines or [""])[-1][:300]
