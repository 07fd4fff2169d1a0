"""Print measurements, inputs and predictions of the scaling benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from patchmill.benchmarks.lib import machine, report
from patchmill.benchmarks.lib.scaling import model
from patchmill.benchmarks.lib.scaling.inputs import ASSUMPTION, ModelInput
from patchmill.benchmarks.lib.scaling.measure import TURNS, ScalingResult
from patchmill.benchmarks.lib.scaling.model import Prediction

LEGEND = """\
waits: share of a step in which ranks wait for the gradient exchange
fed: images/s per rank that loaders and store deliver"""
MODEL_ASSUMPTIONS = (
    "the model assumes that all ranks have the same batch and the same speed;",
    "that gradients are reduced in rings, inside a node and then between nodes;",
    "that every image is read from the store in every epoch, and loading does not slow compute",
)


def show(
    measured: Sequence[ScalingResult],
    inputs: Mapping[str, ModelInput],
    predicted: Sequence[Prediction],
) -> None:
    console = Console(highlight=False)
    console.print(f"{machine.cpu()}, {machine.cores()} cores", style="dim", markup=False)
    console.print("images/s by number of processes, and speed-up over one:", style="dim")
    console.print(_measured(measured))
    console.print("\ninputs of the prediction:")
    for entry in inputs.values():
        style = "bold" if entry.origin == ASSUMPTION else "dim"
        line = f"{entry.value:>12,.4g} {entry.about} ({entry.origin})"
        console.print(line, style=style, markup=False)
    for line in (*MODEL_ASSUMPTIONS, ""):
        console.print(line, style="dim", markup=False)
    console.print(_predicted(predicted))
    console.print(LEGEND, style="dim", markup=False)
    for prediction in model.limit_changes(predicted):
        nodes = f"{prediction.nodes} node" + "s" * (prediction.nodes > 1)
        console.print(f"from {nodes} on, the limit is [bold]{prediction.limit}[/]")


def rows(measured: Sequence[ScalingResult]) -> list[dict[str, str | float]]:
    """Rows quoted in documents: images/s, and the speed-up over one process."""
    json_rows: list[dict[str, str | float]] = []
    for result in measured:
        row: dict[str, str | float] = {"name": str(result.processes)}
        for turn in TURNS:
            rate, speedup = result.rate(turn).median, _speedup(measured, result, turn)
            row |= {turn: round(rate, 1), f"times_{turn}": round(speedup, 3)}
        json_rows.append(row)
    return json_rows


def _speedup(measured: Sequence[ScalingResult], result: ScalingResult, turn: str) -> float:
    return result.rate(turn).median / measured[0].rate(turn).median


def _measured(measured: Sequence[ScalingResult]) -> Table:
    table = report.new_table("processes", *TURNS, "no batch", "exchange")
    for result in measured:
        cells = []
        for turn in TURNS:
            speedup = _speedup(measured, result, turn)
            cells.append(f"[bold]{result.rate(turn).median:,.0f}[/] x{speedup:.2f}")
        exchange = "" if result.exchange is None else f"{result.exchange * 1e3:,.1f} ms"
        table.add_row(str(result.processes), *cells, f"{result.wait:.1%}", exchange)
    return table


def _predicted(predicted: Sequence[Prediction]) -> Table:
    table = report.new_table("nodes", "images/s", "of linear", "limit", "waits", "fed")
    for prediction in predicted:
        table.add_row(
            str(prediction.nodes),
            f"[bold]{prediction.images_per_s:,.0f}[/]",
            f"{prediction.of_linear:.0%}",
            prediction.limit,
            f"{prediction.waiting:.0%}",
            f"{prediction.fed:,.0f}",
        )
    return table
