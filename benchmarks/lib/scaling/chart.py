"""Chart of scaling: measured processes, predicted nodes, and the limit by compute rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from patchmill.benchmarks.lib import machine
from patchmill.benchmarks.lib.scaling import model
from patchmill.benchmarks.lib.scaling.measure import (
    COMPUTING,
    LOADING,
    TRAINING,
    TURNS,
    ScalingResult,
)
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
LABELS = {
    LOADER: "loaders", STORE: "store", COMPUTE: "compute", NETWORK: "compute and exchange",
}  # fmt: skip
MIN_POWER, MAX_POWER, ROWS = 1, 5, 160  # of ten: images/s per rank on the third chart's axis


def draw(
    path: str, measured: Sequence[ScalingResult], predicted: Sequence[Prediction], cluster: Cluster
) -> None:
    """Draw all three charts into one file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.5, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(3, 4, 4))
    _measured(left, measured)
    _predicted(middle, predicted, cluster)
    _limits(right, predicted, cluster)
    for axes, ticks in (
        (left, [result.processes for result in measured]),
        (middle, [prediction.nodes for prediction in predicted]),
        (right, [prediction.nodes for prediction in predicted]),
    ):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.savefig(path, dpi=130)


def _measured(axes: Axes, measured: Sequence[ScalingResult]) -> None:
    counts = [result.processes for result in measured]
    for turn in TURNS:
        rates = [result.rate(turn) for result in measured]
        medians = [rate.median for rate in rates]
        errors = [[r.median - r.low for r in rates], [r.high - r.median for r in rates]]
        style: dict[str, Any] = {"color": COLOURS[turn], "marker": "o", "capsize": 3, "label": turn}
        axes.errorbar(counts, medians, errors, **style)
        linear = [medians[0] * count for count in counts]
        axes.plot(counts, linear, color=COLOURS[turn], linestyle=":", linewidth=1)
    axes.set_title(f"measured: {machine.cpu()}; dotted: linear", loc="left", fontsize=9)
    axes.set_xlabel("processes")
    axes.set_ylabel("images/s")
    axes.legend(fontsize=8, frameon=False)
    axes.margins(y=0.15)


def _predicted(axes: Axes, predicted: Sequence[Prediction], cluster: Cluster) -> None:
    nodes = [prediction.nodes for prediction in predicted]
    for limit, label in LABELS.items():
        ceiling = [prediction.ceilings[limit] for prediction in predicted]
        axes.plot(nodes, ceiling, color=COLOURS[limit], linestyle="--", linewidth=1, label=label)
    rates = [prediction.images_per_s for prediction in predicted]
    axes.plot(nodes, rates, color="black", linewidth=1.8, label="training: the minimum")
    rate = cluster.batch / cluster.step
    title = f"predicted: nodes of {cluster.ranks} ranks, each computing {rate:,.0f} images/s"
    axes.set_title(title, loc="left", fontsize=9)
    axes.set_xlabel("nodes")
    axes.set_ylabel("images/s")
    axes.legend(fontsize=8, frameon=False)


def _limits(axes: Axes, predicted: Sequence[Prediction], cluster: Cluster) -> None:
    """The bottleneck by number of nodes and compute rate of a rank."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    nodes = [prediction.nodes for prediction in predicted]
    powers = (MIN_POWER + (MAX_POWER - MIN_POWER) * row / (ROWS - 1) for row in range(ROWS))
    rates = [10**power for power in powers]
    limits = [
        [LIMITS.index(model.limit(_with_rate(cluster, rate), count)) for count in nodes]
        for rate in rates
    ]
    colours = ListedColormap([COLOURS[limit] for limit in LIMITS])
    last = len(LIMITS) - 1
    axes.pcolormesh(nodes, rates, limits, cmap=colours, vmin=0, vmax=last, alpha=0.75)
    axes.axhline(cluster.batch / cluster.step, color="black", linewidth=1)
    title = f"limit: {cluster.network / 1e9:g} GB/s network, "
    title += f"{cluster.store / 1e9:g} GB/s store; line: these ranks"
    axes.set_title(title, loc="left", fontsize=9)
    axes.set_xlabel("nodes")
    axes.set_ylabel("compute rate of a rank, images/s")
    present = [limit for i, limit in enumerate(LIMITS) if any(i in row for row in limits)]
    patches = [Patch(color=COLOURS[limit], alpha=0.75, label=limit) for limit in present]
    axes.legend(handles=patches, fontsize=8, loc="upper left", framealpha=0.9)


def _with_rate(cluster: Cluster, rate: float) -> Cluster:
    return replace(cluster, step=cluster.batch / rate)
