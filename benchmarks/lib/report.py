"""How benchmarks are asked and answer: tables on the terminal, JSON with the machine, a chart."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from patchmill.benchmarks.lib import machine
from patchmill.benchmarks.lib.digest import Digest
from patchmill.benchmarks.lib.timing import Summary
from patchmill.loaders.common.errors import MillError

BARE = "bare decode"
COLOURS = {BARE: "#a9c5d8", "decode + views": "#6ea0c0", "loader": "#2a6f97"}
THEIRS = "#c9ccd1"


@dataclass(frozen=True)
class Row:
    """One contender's figures, or those of one stage inside the loader."""

    name: str
    stage: str
    rate: Summary  # images per second
    workers: int
    share: float  # of bare decoding's rate; for a stage, of its lanes' time
    cores: float | None = None  # that were busy meanwhile
    gpu_mebibytes: float = 0.0  # of the GPU's memory, taken for it alone
    crew: str = ""  # of a stage: who does it, and shares its lanes with that crew's other stages

    def as_json(self) -> dict[str, Any]:
        found = {
            "name": self.name,
            "stage": self.stage,
            "images_per_s": round(self.rate.median, 1),
            "spread": round(self.rate.spread, 3),
            "workers": self.workers,
            "share": round(self.share, 3),
        }
        if self.cores is not None:
            found["cores_busy"] = round(self.cores, 2)
        if self.gpu_mebibytes > 0:
            found["gpu_mib"] = round(self.gpu_mebibytes)
        return found


@dataclass(frozen=True)
class Result:
    rows: list[Row]  # the contenders
    stages: list[Row]  # inside the loader
    ratios: dict[str, Summary]
    notes: list[str]  # what peers do differently, and why some are left out
    digest: Digest  # of the loader's first batches
    pipeline: str  # of the loader
    bare: str  # which decoder is the bare one
    views: dict[str, float] | None = None  # of the renderer alone
    gpu_mebibytes: dict[str, int] | None = None  # of the whole run

    @property
    def bottleneck(self) -> Row:
        """The longest stage of the busiest crew."""
        busy: dict[str, float] = {}
        for row in self.stages:
            busy[row.crew] = busy.get(row.crew, 0.0) + row.share
        return max(self.stages, key=lambda row: (busy[row.crew], row.share))

    def details(self) -> dict[str, Any]:
        """What is not in the tables."""
        found = {
            "pipeline": self.pipeline,
            "bare_decode": self.bare,
            "first_batches": self.digest.as_json(),
            "views_alone": self.views,
            "gpu_mib": self.gpu_mebibytes,
        }
        return {name: value for name, value in found.items() if value is not None}


# --------------------------------------------------------------------------------- on the terminal


def show(result: Result, headline: Sequence[str], megabytes: float) -> None:
    """`megabytes` is the size of a file."""
    console = Console(highlight=False)
    for line in headline:
        console.print(line, style="dim", markup=False)
    console.print()
    console.print(_contenders(result.rows, megabytes))
    console.print()
    console.print(_inside(result))
    slowest = result.bottleneck
    console.print(f"bottleneck: [bold]{slowest.stage}[/], busy {slowest.share:.0%} of the time\n")
    for name, ratio in result.ratios.items():
        spread = f"{ratio.low:.2f} to {ratio.high:.2f}"
        console.print(f"{name:<24}[bold]{ratio.median:6.2f}[/]   {spread}")
    for line in _remarks(result):
        console.print(line, markup=False)
    for note in result.notes:
        console.print(note, style="dim", markup=False)


def _contenders(rows: Sequence[Row], megabytes: float) -> Table:
    columns = ["images/s", "low to high", "of bare", "MB/s", "cores"]
    on_gpu = any(row.gpu_mebibytes > 0 for row in rows)
    table = new_table("", *columns, *(["GPU MiB"] if on_gpu else []))
    for row in rows:
        rate = row.rate
        cells = [
            f"[bold]{rate.median:,.0f}[/]",
            f"{rate.low:,.0f} to {rate.high:,.0f}",
            f"{row.share:.0%}",
            f"{rate.median * megabytes:,.1f}",
            "" if row.cores is None else f"{row.cores:.2f}",
        ]
        table.add_row(row.name, *cells, *([f"{row.gpu_mebibytes:,.0f}"] if on_gpu else []))
    return table


def _inside(result: Result) -> Table:
    table = new_table(
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


def _remarks(result: Result) -> list[str]:
    lines = [f"first views: {result.digest}"]
    if result.bare != BARE:
        lines.append(f"bare decode is that of {result.bare.removeprefix('decode by ')}")
    if result.views:
        rate, share = result.views["views_per_s"], result.views["share_of_decode_time"]
        lines.append(f"views alone: {rate:,.0f} views/s, {share:.1%} of bare decode's time")
    if result.gpu_mebibytes:
        torch, all = result.gpu_mebibytes.values()
        lines.append(f"GPU memory: all together {all:,} MiB, at most {torch:,} of it by torch")
    return lines


def new_table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, min_width=17)
    for title in others:
        table.add_column(title, justify="right")
    return table


class Parser(argparse.ArgumentParser):
    """Of which mistakes are one sentence, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        raise MillError(message)


# ----------------------------------------------------------------------------------------- in files


def check_writable(*paths: str | None) -> None:
    """Before minutes of measuring, not after."""
    for path in filter(None, paths):
        folder = Path(path).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK) or Path(path).is_dir():
            raise MillError(f"cannot write {path!r}: its folder must be there and be writable")


def write_json(path: str, content: dict[str, Any]) -> None:
    """The content after the command and the machine; whole, or not at all."""
    command = shlex.join(["python", *sys.argv])
    text = json.dumps({"command": command, "machine": machine.describe()} | content, indent=1)
    half = Path(f"{path}.{os.getpid()}.part")
    half.write_text(text + "\n")
    half.replace(path)


def check_chart() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MillError(
            "--plot needs matplotlib, which is not installed: pip install 'patchmill[plot]'"
        ) from None


def draw_chart(path: str, rows: Sequence[Row], title: str) -> None:
    """Horizontal bars of images per second, with their spread."""
    from matplotlib.figure import Figure

    rates = [row.rate for row in rows]
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(
        [row.name for row in rows],
        [rate.median for rate in rates],
        xerr=[[r.median - r.low for r in rates], [r.high - r.median for r in rates]],
        color=[COLOURS.get(row.name, THEIRS) for row in rows],
        ecolor="#555555",
        capsize=3,
    )
    axes.bar_label(bars, [f"{rate.median:,.0f}" for rate in rates], padding=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("images/s")
    axes.set_title(title, loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
