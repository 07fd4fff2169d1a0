"""What was measured and predicted of scaling: tables, what was assumed, and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from patchmill.benchmarks import machine, report, scaling_model
from patchmill.benchmarks.scaling_inputs import ASSUMPTION, Known
from patchmill.benchmarks.scaling_model import COMPUTE, LOADER, NETWORK, STORE, Cluster, Prediction
from patchmill.benchmarks.scaling_race import COMPUTING, LOADING, TRAINING, TURNS, Measured

COLOURS = {
    LOADING: "#a9c5d8", COMPUTING: "#6ea0c0", TRAINING: "#2a6f97",
    LOADER: "#2a6f97", STORE: "#7a9e5f", COMPUTE: "#888888", NETWORK: "#c8783c",
}  # fmt: skip
TOLD = {
    LOADER: "the loaders", STORE: "the store",
    COMPUTE: "computing", NETWORK: "computing, and waiting for the network",
}  # fmt: skip
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
    for it in scaling_model.turns(predicted):
        nodes = f"{it.nodes} node" + "s" * (it.nodes > 1)
        console.print(f"from {nodes} on, the limit is [bold]{it.limit}[/]")


def _measured(measured: Sequence[Measured]) -> Table:
    table = report.new_table("processes", *TURNS, "no batch", "exchange")
    for it in measured:
        cells = []
        for turn in TURNS:
            times = it.rate(turn).median / measured[0].rate(turn).median
            cells.append(f"[bold]{it.rate(turn).median:,.0f}[/] x{times:.2f}")
        exchange = "" if it.exchange is None else f"{it.exchange * 1e3:,.1f} ms"
        table.add_row(str(it.processes), *cells, f"{it.wait:.1%}", exchange)
    return table


def _predicted(predicted: Sequence[Prediction]) -> Table:
    table = report.new_table("nodes", "images/s", "of linear", "limit", "loaders", "store", "waits")
    for it in predicted:
        table.add_row(
            str(it.nodes),
            f"[bold]{it.images_per_s:,.0f}[/]",
            f"{it.of_linear:.0%}",
            it.limit,
            f"{it.most[LOADER]:,.0f}",
            f"{it.most[STORE]:,.0f}",
            f"{it.waiting:.0%}",
        )
    return table


def draw(
    path: str, measured: Sequence[Measured], predicted: Sequence[Prediction], cluster: Cluster
) -> None:
    """Two panels: processes here, and nodes as predicted, where the lowest line is what holds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    here, there = figure.subplots(1, 2)
    counts = [it.processes for it in measured]
    for turn in TURNS:
        rates = [it.rate(turn) for it in measured]
        spread = [
            [it.median - it.low for it in rates],
            [it.high - it.median for it in rates],
        ]
        medians = [it.median for it in rates]
        shown = {"color": COLOURS[turn], "marker": "o", "capsize": 3, "label": turn}
        here.errorbar(counts, medians, spread, **shown)
        linear = [medians[0] * count for count in counts]
        here.plot(counts, linear, color=COLOURS[turn], linestyle=":", linewidth=1)
    here.set_title(f"measured: {machine.cpu()} (dotted: linear)", loc="left", fontsize=9)
    here.set_xlabel("processes")
    nodes = [it.nodes for it in predicted]
    for limit, told in TOLD.items():
        most = [it.most[limit] for it in predicted]
        there.plot(nodes, most, color=COLOURS[limit], linestyle="--", linewidth=1, label=told)
    reached = [it.images_per_s for it in predicted]
    there.plot(nodes, reached, color="black", linewidth=2, label="the least of them: training")
    for it in scaling_model.turns(predicted):
        there.annotate(
            it.limit, (it.nodes, it.images_per_s), (4, -12), textcoords="offset points", fontsize=8
        )
    title = f"predicted: {cluster.ranks} ranks a node, {cluster.network / 1e9:g} GB/s network, "
    title += f"{cluster.store / 1e9:g} GB/s store"
    there.set_title(title, loc="left", fontsize=9)
    there.set_xlabel("nodes")
    for axes, ticks in ((here, counts), (there, nodes)):
        axes.margins(y=0.12)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(ticks, [str(it) for it in ticks], minor=False)
        axes.set_ylabel("images/s")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
