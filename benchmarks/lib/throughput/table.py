"""Print the results of the throughput benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patchmill.benchmarks.lib import printing, report
from patchmill.benchmarks.lib.report import BARE_DECODE, Row
from patchmill.benchmarks.lib.throughput.results import ThroughputResult

if TYPE_CHECKING:
    from rich.table import Table


def show(result: ThroughputResult, headline: Sequence[str]) -> None:
    """Print all tables."""
    console = printing.console()
    for line in headline:
        console.print(line, style="dim", markup=False)
    console.print()
    console.print(_contender_table(result.rows))
    console.print()
    console.print(_stage_table(result))
    slowest = result.bottleneck
    console.print(f"bottleneck: [bold]{slowest.stage}[/], busy {slowest.share:.0%} of the time")
    if result.advice:
        console.print(result.advice, markup=False)
    console.print()
    widest = 2 + max(map(len, result.ratios))
    for name, ratio in result.ratios.items():
        quartiles = f"{ratio.low:.2f} to {ratio.high:.2f}"
        console.print(f"{name:<{widest}}[bold]{ratio.median:6.2f}[/]   {quartiles}")
    for line in _remarks(result):
        console.print(line, markup=False)
    for note in result.notes:
        console.print(note, style="dim", markup=False)


def _contender_table(rows: Sequence[Row]) -> Table:
    columns = ["images/s", "spread", "of bare", "cores", "antialiased", "decoder"]
    on_gpu = any(row.gpu_mebibytes > 0 for row in rows)
    table = report.new_table("", *columns, *(["GPU MiB"] if on_gpu else []))
    for row in rows:
        rate = row.rate
        cells = [
            f"[bold]{rate.median:,.0f}[/]",
            f"{rate.spread:.0%}",
            f"{row.share:.0%}",
            "" if row.cores is None else f"{row.cores:.2f}",
            {None: "", True: "yes", False: "no"}[row.antialiased],
            row.decoder,
        ]
        table.add_row(row.name, *cells, *([f"{row.gpu_mebibytes:,.0f}"] if on_gpu else []))
    return table


def _stage_table(result: ThroughputResult) -> Table:
    table = report.new_table(
        f"inside the loader: {result.pipeline}", "images/s alone", "µs per image", "busy"
    )
    for row in result.stages:
        table.add_row(
            row.stage,
            f"{row.rate.median:,.0f}",
            f"{1e6 * row.workers / row.rate.median:,.0f}",
            f"{row.share:.0%}",
        )
    return table


def _remarks(result: ThroughputResult) -> list[str]:
    lines = [f"first views: {result.digest}"]
    if result.bare_decoder != BARE_DECODE:
        lines.append(f"bare decode is that of {result.bare_decoder.removeprefix('decode by ')}")
    if result.views_alone:
        rate = result.views_alone["views_per_s"]
        share = result.views_alone["share_of_decode_time"]
        lines.append(f"views alone: {rate:,.0f} views/s, {share:.1%} of bare decode's time")
    if result.gpu_mebibytes:
        by_torch, total = result.gpu_mebibytes.values()
        lines.append(f"GPU memory: {total:,} MiB in use, up to {by_torch:,} reserved by torch")
    return lines
