"""Table of results, and a line for each check that is not sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patchmill.benchmarks.lib.printing import console, new_table
from trust.result import Result


def show(results: Sequence[Result]) -> None:
    table = new_table("fault", "tries", "survived", "lost", "repeated")
    for number, column in enumerate(table.columns):
        column.no_wrap = number > 0  # the title is wrapped, never a count
    for result in results:
        table.add_row(*_cells(result))
    console().print(table)
    for line in remarks(results):
        print(line)


def remarks(results: Iterable[Result]) -> list[str]:
    """Lines about checks that are not sound or were left out, and why."""
    lines = []
    for result in results:
        if result.state != "sound":
            lines.append(f"{result.name}: {result.state}" + (f": {result.why}" * bool(result.why)))
        lines += [f"  {text}" for text in result.failures]
    return lines


def line(result: Result) -> str:
    """One result, as shown when it arrives."""
    counts = f"{result.survived:,} of {result.tries:,} survived"
    return f"{result.state:<9} {result.name}: {result.why or counts} ({result.seconds:.0f} s)"


def _cells(result: Result) -> list[str]:
    counts = (result.tries, result.survived, result.lost, result.repeated)
    shown = [f"{count:,}" for count in counts] if result.tries else [result.state, "", "", ""]
    return [f"{result.name}: {result.title}", *shown]
