"""Figures of several seeds: means, their spread and uncertainty, and differences per seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Figures = Mapping[str, float]  # column -> figure of one seed

# Student's t for two-sided 95 % intervals, for 1, 2, ... degrees of freedom
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def row(name: str, results: Sequence[Figures]) -> dict[str, Any]:
    """Mean of every column and, for several seeds, its spread and uncertainty.

    `COLUMN_std` is the standard deviation (divided by n - 1), `COLUMN_error` the standard error of
    the mean, and `COLUMN_interval` half of the mean's 95 % interval, by Student's t.
    """
    figures: dict[str, Any] = {"name": name}
    values = {column: [result[column] for result in results] for column in results[0]}
    for column, column_values in values.items():
        figures[column] = round(statistics.mean(column_values), 4)
        if (count := len(column_values)) > 1:
            std = statistics.stdev(column_values)
            error = std / math.sqrt(count)
            figures[f"{column}_std"] = round(std, 4)
            figures[f"{column}_error"] = round(error, 4)
            figures[f"{column}_interval"] = round(error * student(count - 1), 4)
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


def student(freedom: int) -> float:
    """Student's t of a two-sided 95 % interval."""
    if freedom <= len(T95):
        return T95[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return z + (z**3 + z) / (4 * freedom) + second


def cell(figures: Mapping[str, Any], column: str, signed: bool = False, spread: str = "std") -> str:
    """`71.2 ± 0.5`, in percent; empty without a figure. `spread` is std, error or interval."""
    if column not in figures:
        return ""
    mean = f"{100 * figures[column]:{'+' if signed else ''}.1f}"
    width = figures.get(f"{column}_{spread}")
    return mean if width is None else f"{mean} ± {100 * width:.1f}"
