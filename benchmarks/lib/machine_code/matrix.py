"""Merge counts of the compile matrix over architectures; compare, print and accept them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

from patchmill.benchmarks.lib import printing
from patchmill.benchmarks.lib.machine_code import budgets
from patchmill.benchmarks.lib.machine_code.budgets import Counts, Line, Table


@dataclass(frozen=True)
class Compiled:
    """One compiled variant."""

    line: Line
    architecture: int


def compiled(usage: str) -> list[Compiled]:
    """Parse the JSON lines written by `helpers_compile`."""
    found = []
    for text in usage.splitlines():
        entries = json.loads(text)
        counts = Counts(**{field.name: entries[field.name] for field in fields(Counts)})
        line = Line(entries["kernel"], entries["variant"], entries["triton"], counts)
        found.append(Compiled(line, entries["architecture"]))
    return found


def lines(several: Iterable[Compiled]) -> Table:
    """The worst counts over architectures for each variant and Triton."""
    by_key: dict[tuple[str, str, str], list[Counts]] = {}
    for each in several:
        by_key.setdefault(each.line.key, []).append(each.line.counts)
    return {key: Line(*key, budgets.worst(counts)) for key, counts in by_key.items()}


def by_kernel(several: Iterable[Compiled]) -> dict[str, str]:
    """The worst counts over a kernel's variants, as text."""
    by_name: dict[str, list[Counts]] = {}
    for each in several:
        by_name.setdefault(each.line.kernel, []).append(each.line.counts)
    return {name: _text(budgets.worst(counts)) for name, counts in sorted(by_name.items())}


def _text(counts: Counts) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value or 'none'}" for name, value in asdict(counts).items()
    )


def beyond(several: Sequence[Compiled], table: Table, everything: bool) -> list[str]:
    """List counts above their budget and, if everything was compiled, unused budgets."""
    found = []
    for each in several:
        line = each.line
        if budget := budgets.budget_of(table, *line.key):
            of = f"Triton {line.triton}, sm_{each.architecture}"
            found += [
                f"{line.kernel} [{line.variant}], {of}: {it}"
                for it in budgets.excess(line.counts, budget)
            ]
    if everything:
        there = {(each.line.kernel, each.line.variant) for each in several}
        found += [
            f"{kernel} [{variant}] has a budget, but no test compiles it"
            for kernel, variant in dict.fromkeys(key[:2] for key in table)
            if (kernel, variant) not in there
        ]
    return found


def accepted(found: Table, table: Table, everything: bool) -> Table:
    """The table updated with new counts, which replace all lines of the Tritons and kernels run."""
    kernels = {line.kernel for line in found.values()}
    tritons = {line.triton for line in found.values()}
    kept = {
        key: line
        for key, line in table.items()
        if line.triton not in tritons or (line.kernel not in kernels and not everything)
    }
    return kept | found


def show(found: Table, table: Table) -> None:
    """Print the counts, each preceded by its budget if they differ."""
    names = [field.name for field in fields(Counts)]
    shown = printing.new_table("kernel", "Triton", *(name.replace("_", " ") for name in names))
    for key, line in sorted(found.items()):
        budget = budgets.budget_of(table, *key)
        cells = []
        for name in names:
            after = str(getattr(line.counts, name))
            before = after if budget is None else str(getattr(budget, name))
            cells.append(after if before == after else f"{before} → {after}")
        shown.add_row(f"{line.kernel} {line.variant}", line.triton, *cells)
    printing.console().print(shown)
