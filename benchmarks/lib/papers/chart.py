"""Bar chart of a table, with one group per column and one bar per row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from patchmill.benchmarks.lib.papers.paper import Rows

COLOURS = (
    *("#a0a0a0", "#a9c5d8", "#6ea0c0", "#2a6f97", "#7a9e5f"),
    *("#c8783c", "#8d6a9f", "#d4b04c", "#3f3f3f", "#b5656b"),
)


def draw(path: Path, rows: Rows, columns: Mapping[str, str], title: str) -> None:
    """Means in percent, with error bars of one standard deviation over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 0.28 * len(rows) * len(columns) + len(columns), 3.6))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    width = 0.85 / len(rows)
    for number, row in enumerate(rows):
        at = [place for place, column in enumerate(columns) if column in row]
        shown = [column for column in columns if column in row]
        axes.bar(
            [place + (number - (len(rows) - 1) / 2) * width for place in at],
            [100 * row[column] for column in shown],
            width,
            yerr=[100 * row.get(f"{column}_std", 0.0) for column in shown],
            color=COLOURS[number % len(COLOURS)],
            ecolor="#555555",
            capsize=2,
            label=row["name"],
        )
    axes.set_xticks(range(len(columns)), columns.values())
    axes.set_ylabel("%")
    axes.set_title(title, loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110)
