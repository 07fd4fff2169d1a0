"""Reports of the benchmark commands: arguments, rows, tables, JSON files, bar charts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchmill import script
from patchmill.benchmarks.lib import machine
from patchmill.benchmarks.lib.printing import new_table as new_table
from patchmill.benchmarks.lib.timing import Summary
from patchmill.loaders.common import arguments
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import writing

BARE_DECODE = "bare decode"
COLOURS = {
    BARE_DECODE: "#a9c5d8",
    "decode + views": "#6ea0c0",
    "loader": "#2a6f97",
    "loader, cached": "#2a6f97",
}
PEER_COLOUR = "#c9ccd1"


class Parser(arguments.Parser):
    """Parser of a benchmark, described by its module's docstring."""

    def __init__(self, name: str, docstring: str | None, usage: str = "") -> None:
        paragraphs = (docstring or "").split("\n\n")
        about = [text for text in paragraphs if not text.startswith("    ")]  # without the usage
        super().__init__(f"patchmill bench {name}", usage, "\n\n".join(about))


@dataclass(frozen=True)
class Row:
    """Figures of one contender, or of one stage inside the loader."""

    name: str
    stage: str
    rate: Summary  # images per second
    workers: int
    share: float  # of bare decoding's rate; for a stage, of its lanes' time
    cores: float | None = None  # busy during its turns
    gpu_mebibytes: float = 0.0  # GPU memory allocated by it
    crew: str = ""  # of a stage: the lanes that it shares with the crew's other stages
    decoder: str = ""
    antialiased: bool | None = None  # None if nothing is resized
    loader_ratio: float | None = None  # of a peer: our loader's rate divided by this one's

    def as_json(self) -> dict[str, Any]:
        entries: dict[str, Any] = {
            "name": self.name,
            "stage": self.stage,
            "images_per_s": round(self.rate.median, 1),
            "spread": round(self.rate.spread, 3),
            "workers": self.workers,
            "share": round(self.share, 3),
        }
        if self.cores is not None:
            entries["cores_busy"] = round(self.cores, 2)
        if self.gpu_mebibytes > 0:
            entries["gpu_mib"] = round(self.gpu_mebibytes)
        if self.decoder:
            entries["decoder"] = self.decoder
        if self.antialiased is not None:
            entries["antialiased"] = self.antialiased
        if self.loader_ratio is not None:
            entries["loader_ratio"] = round(self.loader_ratio, 3)
        return entries


def check_writable(*paths: str | None) -> None:
    """Raise if an output cannot be written, before minutes of measuring rather than after."""
    for path in filter(None, paths):
        folder = Path(path).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK) or Path(path).is_dir():
            raise MillError(f"cannot write {path!r}: its folder must exist and be writable")


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write the command, the machine and `content` atomically."""
    about = {"command": script.command_line(sys.argv), "machine": machine.describe()}
    text = json.dumps(about | content, indent=1)
    writing.write_atomic(Path(path), text + "\n", writing.unique_name(Path(path)))


def check_chart() -> None:
    """Raise if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MillError(
            "--plot needs matplotlib, which is not installed: pip install 'patchmill[plot]'"
        ) from None


def _label(row: Row) -> str:
    """Name of a bar; the second line has the decoder, and whether resizing is antialiased."""
    resizes = {None: "", True: "antialiased", False: "not antialiased"}[row.antialiased]
    decoder = "no decoding" if row.decoder == "none" else row.decoder
    about = ", ".join(filter(None, (decoder, resizes)))
    return f"{row.name}\n{about}" if about else row.name


def draw_chart(path: str, rows: Sequence[Row], title: str) -> None:
    """Horizontal bars of images per second, with error bars from low to high."""
    from matplotlib.figure import Figure

    rates = [row.rate for row in rows]
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(
        [_label(row) for row in rows],
        [rate.median for rate in rates],
        xerr=[[r.median - r.low for r in rates], [r.high - r.median for r in rates]],
        color=[COLOURS.get(row.name, PEER_COLOUR) for row in rows],
        ecolor="#555555",
        capsize=3,
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.bar_label(bars, [f"{rate.median:,.0f}" for rate in rates], padding=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("images/s")
    axes.set_title(title, loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
