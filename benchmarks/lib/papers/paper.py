"""Description of a paper's experiment: its trainings, its measures and its claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmill.benchmarks.lib.seeds import Figures

if TYPE_CHECKING:
    from patchmill.benchmarks.lib.papers.experiment import Experiment

Rows = Sequence[Mapping[str, Any]]  # of `seeds.row`: means over seeds by column, and their spread


@dataclass(frozen=True)
class Budget:
    """One size of the experiment."""

    overrides: tuple[str, ...]  # settings of all trainings
    seeds: int = 3
    tests: int | None = None  # scenes to test on; None: all test images of the data


@dataclass(frozen=True)
class Claim:
    """A sentence that holds if one row's column exceeds another's, compared per seed.

    With `equal` the claim is that there is no difference: an interval around zero is consistent.
    """

    text: str
    better: str
    than: str
    column: str
    other_column: str | None = None  # of the row `than`, if it is not the same
    equal: bool = False


@dataclass(frozen=True)
class Paper:
    name: str  # of the script
    title: str
    budgets: Mapping[str, Budget]  # cpu, gpu, paper
    # Overrides of each training beyond the budget's, by the run's name
    trainings: Callable[[Budget, int], Mapping[str, Sequence[str]]]
    measure: Callable[[Experiment, int], Mapping[str, Figures]]  # a row's name -> its figures
    columns: Mapping[str, str]  # titles of the table's columns
    claims: Sequence[Claim] = ()
    plot: Callable[[Path, Rows], None] | None = None  # None: bars of the columns
    prepare: Callable[[Experiment], None] | None = None  # makes what the trainings read
    # Settings of all runs, derived from a budget's name and the given settings
    added: Callable[[str, Sequence[str]], Iterable[str]] | None = None
