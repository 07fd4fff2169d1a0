"""What was measured and predicted of scaling, as tables, and what was assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from patchmill.benchmarks.lib import machine, report
from patchmill.benchmarks.lib.scaling import model
from patchmill.benchmarks.lib.scaling.inputs import ASSUMPTION, Known
from patchmill.benchmarks.lib.scaling.measure import TURNS, Measured
from patchmill.benchmarks.lib.scaling.model import Prediction

NAMES = """\
waits: the share of a step in which ranks wait for the exchange of gradients
fed: images/s that loaders and store have for each rank"""
SIMPLE = (
    "and by this: every rank has the same batch, and is as fast as the others;",
    "gradients are added up in rings, inside a node and then between nodes;",
    "every image comes from the store, each time; loading takes nothing from computing",
)


def show(
    measured: Sequence[Measured], inputs: Mapping[str, Known], predicted: Sequence[Prediction]
) -> None:
    console = Console(highlight=False)
    console.print(f"{machine.cpu()}, {machine.cores()} cores", style="dim", markup=False)
    console.print("images/s of so many processes, and times that of one:", style="dim")
    console.print(_measured(measured))
    console.print("\nwhat the prediction goes by:")
    for known in inputs.values():
        mark = "bold" if known.origin == ASSUMPTION else "dim"
        line = f"{known.value:>12,.4g} {known.about} ({known.origin})"
        console.print(line, style=mark, markup=False)
    for line in (*SIMPLE, ""):
        console.print(line, style="dim", markup=False)
    console.print(_predicted(predicted))
    console.print(NAMES, style="dim", markup=False)
    for it in model.turns(predicted):
        nodes = f"{it.nodes} node" + "s" * (it.nodes > 1)
        console.print(f"from {nodes} on, the limit is [bold]{it.limit}[/]")


def rows(measured: Sequence[Measured]) -> list[dict[str, str | float]]:
    """What is measured, to quote: images/s, and times those of one process."""
    found: list[dict[str, str | float]] = []
    for it in measured:
        row: dict[str, str | float] = {"name": str(it.processes)}
        for turn in TURNS:
            rate = it.rate(turn).median
            row |= {turn: round(rate, 1), f"times_{turn}": round(rate / _alone(measured, turn), 3)}
        found.append(row)
    return found


def _alone(measured: Sequence[Measured], turn: str) -> float:
    return measured[0].rate(turn).median


def _measured(measured: Sequence[Measured]) -> Table:
    table = report.new_table("processes", *TURNS, "no batch", "exchange")
    for it in measured:
        cells = []
        for turn in TURNS:
            times = it.rate(turn).median / _alone(measured, turn)
            cells.append(f"[bold]{it.rate(turn).median:,.0f}[/] x{times:.2f}")
        exchange = "" if it.exchange is None else f"{it.exchange * 1e3:,.1f} ms"
        table.add_row(str(it.processes), *cells, f"{it.wait:.1%}", exchange)
    return table


def _predicted(predicted: Sequence[Prediction]) -> Table:
    table = report.new_table("nodes", "images/s", "of linear", "limit", "waits", "fed")
    for it in predicted:
        table.add_row(
            str(it.nodes),
            f"[bold]{it.images_per_s:,.0f}[/]",
            f"{it.of_linear:.0%}",
            it.limit,
            f"{it.waiting:.0%}",
            f"{it.fed:,.0f}",
        )
    return table
