"""Budgets of kernels' machine code: one line per variant and Triton, the worst over all GPUs.

A line holds the counts last accepted. Code may become better than its line, and its number of
instructions may grow by SLACK; no other count may become worse.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib.machine_code import counting, occupancy
from patchmill.benchmarks.lib.machine_code.counting import MachineCode

SLACK = 1.05  # of instructions


@dataclass(frozen=True)
class Counts:
    """Costs of a kernel variant; instructions are those of one warp."""

    instructions: int
    loop: int  # instructions in the hottest loop
    tensor: int  # of the loop's, on tensor cores
    shared_accesses: int  # of the loop's, to shared memory
    loads: str  # of global memory, as "number x bytes per thread"
    stores: str
    float64: int  # instructions
    registers: int  # per thread
    spilled: int  # bytes per thread
    shared: int  # bytes per block
    warps: int  # resident on a multiprocessor


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    kernel: str  # folder.name
    variant: str  # compile-time constants and types
    triton: str  # 3.8
    counts: Counts

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kernel, self.variant, self.triton


Table = dict[tuple[str, str, str], Line]  # by the lines' keys


def counts(code: MachineCode, capability: int, shared: int, num_warps: int) -> Counts:
    hottest = counting.kinds(code.within(code.hottest))
    return Counts(
        instructions=len(code.instructions),
        loop=len(code.within(code.hottest)) if code.hottest else 0,
        tensor=hottest["tensor"],
        shared_accesses=hottest["shared"],
        loads=_widths_text(counting.widths(code.instructions, "load")),
        stores=_widths_text(counting.widths(code.instructions, "store")),
        float64=counting.kinds(code.instructions)["float64"],
        registers=code.registers,
        spilled=code.spilled,
        shared=shared,
        warps=occupancy.warps(capability, code.registers, shared, num_warps),
    )


def excess(found: Counts, budget: Counts) -> list[str]:
    """List the ways in which `found` is worse than its budget, one phrase each."""
    worse = [
        f"{name} {getattr(found, name)} > {getattr(budget, name)}"
        for name in ("instructions", "loop", "shared_accesses", "float64", "spilled", "shared")
        if getattr(found, name) > getattr(budget, name) * _allowance(name)
    ]
    if found.warps < budget.warps:
        worse.append(f"warps {found.warps} < {budget.warps}")
    for name in ("loads", "stores"):
        ours, most = _widths_of(getattr(found, name)), _widths_of(getattr(budget, name))
        if any(narrow(ours, width) > narrow(most, width) for width in ours):
            worse.append(f"{name} {getattr(found, name)} instead of {getattr(budget, name)}")
    return worse


def _allowance(name: str) -> float:
    return SLACK if name in ("instructions", "loop") else 1.0


def narrow(widths: Mapping[int, int], most: int) -> int:
    """Accesses of at most this many bytes: the count that grows if wide ones are split."""
    return sum(number for width, number in widths.items() if width <= most)


def worst(several: Iterable[Counts]) -> Counts:
    """The maximum of all counts and the minimum of warps; widths of the most instructions."""
    several = list(several)
    found = {
        field.name: max(getattr(each, field.name) for each in several)
        for field in fields(Counts)
        if field.name not in ("loads", "stores", "warps")
    }
    for name in ("loads", "stores"):
        found[name] = _widths_text(_worst_widths([getattr(each, name) for each in several]))
    return Counts(**found, warps=min(each.warps for each in several))


def _worst_widths(several: list[str]) -> Counter[int]:
    """Widths with at least as many narrow accesses as any of them."""
    tables = [_widths_of(text) for text in several]
    result: Counter[int] = Counter()
    for width in sorted({width for table in tables for width in table}):
        most = max(narrow(table, width) for table in tables)
        result[width] = max(most - narrow(result, width), 0)
    return +result


def _widths_text(widths: Mapping[int, int]) -> str:
    return " ".join(f"{number}x{width}" for width, number in sorted(widths.items()))


def _widths_of(text: str) -> Counter[int]:
    pairs = [part.split("x") for part in text.split()]
    return Counter({int(width): int(number) for number, width in pairs})


# ------------------------------------------------------------------------------------- the table


def read(file: Path) -> Table:
    with file.open(newline="") as lines:
        found = [_line(row) for row in csv.DictReader(lines)]
    return {line.key: line for line in found}


def write(file: Path, table: Table) -> None:
    """Sort by kernel, then variant in the order of the table, then Triton."""
    place: dict[tuple[str, str], int] = {}
    for line in table.values():
        place.setdefault((line.kernel, line.variant), len(place))
    with file.open("w", newline="") as lines:
        names = ["kernel", "variant", "triton", *(field.name for field in fields(Counts))]
        writer = csv.DictWriter(lines, names, lineterminator="\n")
        writer.writeheader()
        for line in sorted(
            table.values(),
            key=lambda line: (line.kernel, place[line.kernel, line.variant], line.triton),
        ):
            row = {"kernel": line.kernel, "variant": line.variant, "triton": line.triton}
            writer.writerow(row | asdict(line.counts))


def _line(row: dict[str, Any]) -> Line:
    texts = ("loads", "stores")
    named: dict[str, Any] = {
        field.name: row[field.name] if field.name in texts else int(row[field.name])
        for field in fields(Counts)
    }
    return Line(row["kernel"], row["variant"], row["triton"], Counts(**named))


def budget_of(table: Table, kernel: str, variant: str, triton: str) -> Counts | None:
    """A variant's budget; for a Triton without one, the worst of the others."""
    if line := table.get((kernel, variant, triton)):
        return line.counts
    others = [
        line.counts for line in table.values() if (line.kernel, line.variant) == (kernel, variant)
    ]
    return worst(others) if others else None


def first_variants(table: Table) -> dict[str, str]:
    """The first variant of each kernel: `make test` counts these."""
    found: dict[str, str] = {}
    for line in table.values():
        found.setdefault(line.kernel, line.variant)
    return found
