"""Measure the cases of several operations; print, plot, and convert to JSON."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from patchmill.benchmarks.lib import machine, printing, report
from patchmill.benchmarks.operations.case import COMPILED, EAGER, OURS, Case
from patchmill.benchmarks.operations.measure import Figure, Rates, measure, rates
from patchmill.loaders.common.progress import track

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {OURS: "#2a6f97", EAGER: "#c9ccd1"}
OTHERS = ("#a9c5d8", "#8a8f98", "#d8c5a9")

Measured = tuple[Case, list[Figure]]


def run(
    names: Sequence[str], device: torch.device, dtype: torch.dtype, rounds: int, plot: str | None
) -> dict[str, Any]:
    """Measure, print, plot; return the results as JSON."""
    peak = rates(device)
    measured, notes = _measured(names, device, dtype, rounds)
    console = printing.console()
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else machine.cpu()
    bandwidth, products = peak.bandwidth / 1e9, peak.products[dtype] / 1e9
    console.print(
        f"{on}: medians of {rounds} rounds; a copy moves {bandwidth:,.0f} GB/s, products run at "
        f"{products:,.0f} Gop/s",
        markup=False,
    )
    _show(console, measured, peak, dtype)
    for note in notes:
        console.print(note, style="dim", markup=False)
    if plot:
        _draw(plot, measured, on)
    cases = [_as_json(case, figures, peak, dtype) for case, figures in measured]
    return {
        "threads": torch.get_num_threads(),
        "bandwidth_gb_s": round(peak.bandwidth / 1e9, 1),
        "products_gop_s": round(peak.products[dtype] / 1e9, 1),
        "rows": [row_of(case) for case in cases],
        "cases": cases,
        "notes": notes,
    }


def _measured(
    names: Sequence[str], device: torch.device, dtype: torch.dtype, rounds: int
) -> tuple[list[Measured], list[str]]:
    """Measure operation by operation, so that memory holds the inputs of one only."""
    results: list[Measured] = []
    notes: list[str] = []
    with track("measuring", len(names), unit="kernels") as advance:
        for name in names:
            module = importlib.import_module(f"patchmill.benchmarks.operations.{name}")
            for case in module.cases(device, dtype):
                figures, case_notes = measure(case, device, rounds)
                results.append((case, figures))
                notes += case_notes
            advance(1)
    return results, notes


def _show(console: Console, measured: Sequence[Measured], peak: Rates, dtype: torch.dtype) -> None:
    for case, figures in measured:
        console.print(f"\n[bold]{case.operation}[/], {case.shape}")
        table = report.new_table("", "ms", "spread", "x eager", "extra MiB", "floor / time")
        for column in table.columns[1:]:
            column.min_width = 9
        for figure in figures:
            seconds = figure.seconds
            table.add_row(
                figure.contender,
                f"[bold]{1e3 * seconds.median:,.2f}[/]",
                f"{seconds.spread:.0%}",
                f"{figure.speedup.median:,.2f}",
                f"{figure.mebibytes:,.1f}",
                f"{_floor(case, peak, dtype) / seconds.median:.0%}",
            )
        console.print(table)


def _floor(case: Case, peak: Rates, dtype: torch.dtype) -> float:
    return case.floor.seconds(peak.bandwidth, peak.products[dtype])


def _as_json(
    case: Case, figures: Sequence[Figure], peak: Rates, dtype: torch.dtype
) -> dict[str, Any]:
    floor = _floor(case, peak, dtype)
    return {
        "operation": case.operation,
        "shape": case.shape,
        "backward": case.backward,
        "floor_ms": round(1e3 * floor, 4),
        "contenders": [
            {
                "name": figure.contender,
                "ms": round(1e3 * figure.seconds.median, 4),
                "spread": round(figure.seconds.spread, 3),
                "times_eager": round(figure.speedup.median, 3),
                "times_eager_low": round(figure.speedup.low, 3),
                "times_eager_high": round(figure.speedup.high, 3),
                "extra_mib": round(figure.mebibytes, 2),
                "floor_share": round(floor / figure.seconds.median, 4),
            }
            for figure in figures
        ],
    }


def row_of(case: dict[str, Any]) -> dict[str, Any]:
    """The row of a case that documents quote."""
    by_name = {contender["name"]: contender for contender in case["contenders"]}
    ours, eager = by_name[OURS], by_name[EAGER]
    row = {
        "name": f"{case['operation']}, {case['shape']}",
        "ms": ours["ms"],
        "times_eager": ours["times_eager"],
        "mib": ours["extra_mib"],
        "eager_mib": eager["extra_mib"],
    }
    if COMPILED in by_name:
        row["times_compiled"] = round(by_name[COMPILED]["ms"] / ours["ms"], 3)
    return row


def _draw(path: str, measured: Sequence[Measured], title: str) -> None:
    """Two bar charts: speed-up over eager PyTorch, and peak memory beyond inputs and results."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(11, 1.5 + 0.95 * len(measured)), layout="constrained")
    speed, memory = drawing.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(f.contender for _, figures in measured for f in figures))
    others = iter(OTHERS * len(names))
    colours = {name: COLOURS.get(name) or next(others) for name in names}
    height = 0.8 / len(names)
    for place, (_, figures) in enumerate(measured):
        for figure in figures:
            y = place + (names.index(figure.contender) - (len(names) - 1) / 2) * height
            gain = figure.speedup.median - 1
            speed.barh(y, gain, height, left=1, color=colours[figure.contender])
            memory.barh(y, max(figure.mebibytes, 0.1), height, color=colours[figure.contender])
    speed.set_yticks(range(len(measured)), [f"{c.operation}\n{c.shape}" for c, _ in measured])
    speed.axvline(1, color="#888888", linewidth=0.8)
    speed.set_xlabel("times as fast as eager PyTorch")
    memory.set_xlabel("peak MiB beyond inputs and results")
    for axes in (speed, memory):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    speed.invert_yaxis()
    for axes in (speed, memory):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    patches = [speed.barh(0, 0, left=1, color=colours[name], label=name) for name in names]
    drawing.legend(handles=patches, loc="outside lower center", ncols=len(names), fontsize=8)
    drawing.suptitle(title, fontsize=9, x=0.01, ha="left")
    drawing.savefig(path, dpi=150)
