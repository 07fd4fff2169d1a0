"""`Result`: the result of a check that ran in its own process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from patchmill.benchmarks.lib.process_group import Ended
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import write_atomic
from trust.check import Check, Form, Outcome

State = Literal["sound", "broken", "died", "hangs", "left out"]


@dataclass(frozen=True)
class Result:
    name: str
    part: str
    title: str
    form: Form
    seed: int
    state: State
    why: str = ""
    tries: int = 0
    survived: int = 0
    lost: int = 0
    repeated: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_row(self) -> dict[str, Any]:
        row = {key: value for key, value in asdict(self).items() if key not in ("form", "seed")}
        return row | {"ends": ", ".join(f"{end} {count:,}" for end, count in self.ends.items())}


def of_outcome(check: Check, form: Form, seed: int, outcome: Outcome) -> Result:
    return Result(
        check.name,
        check.part,
        check.title,
        form,
        seed,
        "sound" if outcome.sound else "broken",
        "" if outcome.tries else "nothing was tried",
        outcome.tries,
        outcome.survived,
        outcome.lost,
        outcome.repeated,
        dict(outcome.ends.most_common()),
        outcome.figures,
        outcome.texts,
    )


def of_process(check: Check, form: Form, seed: int, ended: Ended, path: Path, log: Path) -> Result:
    """Read the result that the check's process wrote, or report how it ended without one."""
    seconds = round(ended.seconds, 1)
    if ended.in_time and ended.status == 0 and (written := read(path)):
        return Result(**{**asdict(written), "seconds": seconds})
    why = (
        f"it did not end within {ended.seconds:.0f} s" if not ended.in_time else _how(ended.status)
    )
    said = _last_line(log)
    return Result(
        check.name,
        check.part,
        check.title,
        form,
        seed,
        "died" if ended.in_time else "hangs",
        f"{why}; last line of {log.name}: {said}" if said else why,
        seconds=seconds,
    )


def left_out(check: Check, form: Form, seed: int, why: str) -> Result:
    return Result(check.name, check.part, check.title, form, seed, "left out", why)


def write(path: Path, result: Result) -> None:
    write_atomic(path, json.dumps(asdict(result), indent=1) + "\n")


def read(path: Path) -> Result | None:
    try:
        return Result(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise MillError(
            f"cannot read {path}: {' '.join(str(error).split())}; remove it to rerun that check"
        ) from None


def _how(status: int) -> str:
    return f"signal {-status} ended it" if status < 0 else f"exit status {status}"


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    lines = [line.strip() for line in lines if line.strip() and not line.startswith("$ ")]
    return lines[-1][:300] if lines else ""
