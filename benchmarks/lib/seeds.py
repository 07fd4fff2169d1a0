"""Figures of several seeds: means, standard deviations, and differences seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Figures = Mapping[str, float]  # column -> figure of one seed


def row(name: str, results: Sequence[Figures]) -> dict[str, Any]:
    """Mean and standard deviation (divided by n - 1; none for one seed) of every column."""
    figures: dict[str, Any] = {"name": name}
    values = {column: [result[column] for result in results] for column in results[0]}
    for column, column_values in values.items():
        figures[column] = round(statistics.mean(column_values), 4)
        if len(column_values) > 1:
            figures[f"{column}_std"] = round(statistics.stdev(column_values), 4)
    return figures | {
        "seeds": {name: [round(v, 4) for v in seeds] for name, seeds in values.items()}
    }


def difference(name: str, results: Sequence[Figures], others: Sequence[Figures]) -> dict[str, Any]:
    """Row of differences between figures of the same seed, in the columns that both have."""
    return row(
        name,
        [
            {column: value - other[column] for column, value in result.items() if column in other}
            for result, other in zip(results, others, strict=True)
        ],
    )


def cell(figures: Mapping[str, Any], column: str, signed: bool = False) -> str:
    """`71.2 ± 0.5`, in percent; empty without a figure."""
    if column not in figures:
        return ""
    mean = f"{100 * figures[column]:{'+' if signed else ''}.1f}"
    std = figures.get(f"{column}_std")
    return mean if std is None else f"{mean} ± {100 * std:.1f}"
