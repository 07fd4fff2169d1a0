"""Scaling drawn: processes here; nodes as predicted; and what limits faster or slower ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from patchmill.benchmarks.lib import machine
from patchmill.benchmarks.lib.scaling import model
from patchmill.benchmarks.lib.scaling.measure import COMPUTING, LOADING, TRAINING, TURNS, Measured
from patchmill.benchmarks.lib.scaling.model import (
    COMPUTE,
    LIMITS,
    LOADER,
    NETWORK,
    STORE,
    Cluster,
    Prediction,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    LOADING: "#a9c5d8", COMPUTING: "#6ea0c0", TRAINING: "#2a6f97",
    LOADER: "#2a6f97", STORE: "#7a9e5f", COMPUTE: "#a0a0a0", NETWORK: "#c8783c",
}  # fmt: skip
TOLD = {
    LOADER: "loaders", STORE: "store", COMPUTE: "computing", NETWORK: "computing and exchange",
}  # fmt: skip
SLOWEST, FASTEST, ROWS = 1, 5, 160  # powers of ten of images/s a rank computes, and how finely


def draw(
    path: str, measured: Sequence[Measured], predicted: Sequence[Prediction], cluster: Cluster
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.5, 4.2), layout="constrained")
    here, there, limits = figure.subplots(1, 3, width_ratios=(3, 4, 4))
    _measured(here, measured)
    _predicted(there, predicted, cluster)
    _limits(limits, predicted, cluster)
    for axes, ticks in (
        (here, [it.processes for it in measured]),
        (there, [it.nodes for it in predicted]),
        (limits, [it.nodes for it in predicted]),
    ):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(ticks, [str(it) for it in ticks], minor=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.savefig(path, dpi=130)


def _measured(axes: Axes, measured: Sequence[Measured]) -> None:
    counts = [it.processes for it in measured]
    for turn in TURNS:
        rates = [it.rate(turn) for it in measured]
        middle = [it.median for it in rates]
        spread = [[it.median - it.low for it in rates], [it.high - it.median for it in rates]]
        shown: dict[str, Any] = {"color": COLOURS[turn], "marker": "o", "capsize": 3, "label": turn}
        axes.errorbar(counts, middle, spread, **shown)
        linear = [middle[0] * count for count in counts]
        axes.plot(counts, linear, color=COLOURS[turn], linestyle=":", linewidth=1)
    axes.set_title(f"measured: {machine.cpu()}; dotted: linear", loc="left", fontsize=9)
    axes.set_xlabel("processes")
    axes.set_ylabel("images/s")
    axes.legend(fontsize=8, frameon=False)
    axes.margins(y=0.15)


def _predicted(axes: Axes, predicted: Sequence[Prediction], cluster: Cluster) -> None:
    nodes = [it.nodes for it in predicted]
    for limit, told in TOLD.items():
        most = [it.most[limit] for it in predicted]
        axes.plot(nodes, most, color=COLOURS[limit], linestyle="--", linewidth=1, label=told)
    reached = [it.images_per_s for it in predicted]
    axes.plot(nodes, reached, color="black", linewidth=1.8, label="training: the least of them")
    rate = cluster.batch / cluster.step
    title = f"predicted: nodes of {cluster.ranks} ranks that compute {rate:,.0f} images/s each"
    axes.set_title(title, loc="left", fontsize=9)
    axes.set_xlabel("nodes")
    axes.set_ylabel("images/s")
    axes.legend(fontsize=8, frameon=False)


def _limits(axes: Axes, predicted: Sequence[Prediction], cluster: Cluster) -> None:
    """Regions of what is scarce, for ranks that compute faster or slower than these."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    nodes = [it.nodes for it in predicted]
    powers = (SLOWEST + (FASTEST - SLOWEST) * row / (ROWS - 1) for row in range(ROWS))
    rates = [10**power for power in powers]
    scarce = [
        [LIMITS.index(model.limit(_as_fast(cluster, rate), count)) for count in nodes]
        for rate in rates
    ]
    colours = ListedColormap([COLOURS[it] for it in LIMITS])
    last = len(LIMITS) - 1
    axes.pcolormesh(nodes, rates, scarce, cmap=colours, vmin=0, vmax=last, alpha=0.75)
    axes.axhline(cluster.batch / cluster.step, color="black", linewidth=1)
    title = f"what is scarce: {cluster.network / 1e9:g} GB/s network, "
    title += f"{cluster.store / 1e9:g} GB/s store; line: these ranks"
    axes.set_title(title, loc="left", fontsize=9)
    axes.set_xlabel("nodes")
    axes.set_ylabel("images/s that a rank computes")
    shown = [it for number, it in enumerate(LIMITS) if any(number in row for row in scarce)]
    patches = [Patch(color=COLOURS[it], alpha=0.75, label=it) for it in shown]
    axes.legend(handles=patches, fontsize=8, loc="upper left", framealpha=0.9)


def _as_fast(cluster: Cluster, rate: float) -> Cluster:
    return replace(cluster, step=cluster.batch / rate)
