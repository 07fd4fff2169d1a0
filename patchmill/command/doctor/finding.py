"""A finding of a probe, as text and as JSON."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "absent", "warning", "broken"]

MARKS = {"ok": " ", "absent": "-", "warning": "!", "broken": "x"}


@dataclass(frozen=True)
class Finding:
    name: str
    state: State  # absent: optional and missing; broken: patchmill needs it
    text: str
    cost: str = ""  # consequence of a state other than ok
    remedy: str = ""  # a command, or a few words

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value}

    def lines(self) -> list[str]:
        first = f"  {MARKS[self.state]} {self.name:<14} "
        return textwrap.wrap(self.text, 98, initial_indent=first, subsequent_indent=" " * 19)


def describe(error: BaseException) -> str:
    """An error as one line."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
