"""Claims as differences between two rows of the same seeds, with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from patchmill.benchmarks.lib import seeds
from patchmill.benchmarks.lib.papers.paper import Claim
from patchmill.benchmarks.lib.seeds import Figures

HOLDS, OPEN, REVERSED = "holds", "does not show", "is reversed"
NO_DIFFERENCE, DIFFERENCE = "no difference shows", "a difference shows"


def measured(claim: Claim, result: Mapping[str, Figures]) -> bool:
    """False if a budget lacks these rows or columns."""
    other = claim.other_column or claim.column
    return claim.column in result.get(claim.better, {}) and other in result.get(claim.than, {})


def judge(claim: Claim, results: Sequence[Mapping[str, Figures]]) -> dict[str, Any]:
    """The difference over seeds, its standard error and 95 % interval, and the verdict."""
    other = claim.other_column or claim.column
    values = [one[claim.better][claim.column] - one[claim.than][other] for one in results]
    row = seeds.row(claim.text, [{"difference": value} for value in values])
    row["seeds"] = row["seeds"]["difference"]
    error, interval = row.get("difference_error"), row.get("difference_interval")
    if error:
        row["errors"] = round(row["difference"] / error, 1)
    row["verdict"] = _verdict(row["difference"], interval, claim.equal)
    return row


def _verdict(difference: float, interval: float | None, equal: bool) -> str:
    interval = math.inf if interval is None else interval
    if equal:
        return NO_DIFFERENCE if abs(difference) <= interval else DIFFERENCE
    if difference > interval:
        return HOLDS
    return REVERSED if difference < -interval else OPEN


def lines(claims: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Every claim with its verdict, one line each."""
    for row in claims:
        figure = seeds.cell(row, "difference", signed=True, spread="interval")
        by = f", {row['errors']:+.1f} standard errors" if "errors" in row else ""
        yield f"{row['name']}: {row['verdict']} ({figure}{by})"
