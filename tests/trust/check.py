"""`Check`: inputs or fault times that must do no harm, and the `Outcome` of trying them."""

from __future__ import annotations

import importlib.util
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Form = Literal["short", "standard", "long"]
FORMS: tuple[Form, ...] = ("short", "standard", "long")
SHOWN = 20  # failures whose texts are kept


@dataclass(frozen=True)
class Task:
    """A number of tries, in their own folder."""

    name: str
    tries: int
    folder: Path
    seed: int = 0
    note: Callable[[str], None] = lambda text: None  # reports progress

    def random(self, index: int) -> random.Random:
        """Random numbers of one try: the same whenever it is repeated."""
        return random.Random(f"{self.name}/{self.seed}/{index}")


@dataclass
class Outcome:
    """Counts of a check: a try survives unless it `failed`."""

    tries: int = 0
    failures: int = 0
    lost: int = 0  # samples or steps
    repeated: int = 0
    ends: Counter[str] = field(default_factory=Counter)  # of tries, such as "ledger"
    figures: dict[str, Any] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)  # of failures

    @property
    def survived(self) -> int:
        return self.tries - self.failures

    @property
    def sound(self) -> bool:
        return self.tries > 0 and not (self.failures or self.lost or self.repeated)

    def tried(self, end: str = "") -> None:
        """Count a try and its outcome."""
        self.tries += 1
        if end:
            self.ends[end] += 1

    def failed(self, text: str) -> None:
        """Mark a counted try as failed; `text` says what happened and with which input."""
        self.failures += 1
        if len(self.texts) < SHOWN:
            self.texts.append(text)


@dataclass(frozen=True)
class Check:
    name: str
    title: str  # row label
    run: Callable[[Task], Outcome]
    short: int  # tries in `make test`; 0: covered by other tests
    standard: int  # in `make trust`
    long: int
    seconds: float  # duration of the standard form on one core
    needs: tuple[str, ...] = ()  # modules
    alone: bool = False  # never concurrent with another check

    @property
    def part(self) -> str:
        """Folder of the check: fuzz, faults and so on."""
        return self.run.__module__.split(".")[1]

    def tries(self, form: Form) -> int:
        return {"short": self.short, "standard": self.standard, "long": self.long}[form]

    def estimate(self, form: Form) -> float:
        return self.seconds * self.tries(form) / self.standard

    def limit(self, form: Form) -> float:
        """Timeout in seconds, after which it counts as hanging."""
        return 5 * self.estimate(form) + 120

    def lacks(self) -> str:
        """Modules that it needs and that are not installed."""
        return ", ".join(name for name in self.needs if not importlib.util.find_spec(name))
