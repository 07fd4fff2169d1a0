"""Code shared by benchmarks that compare sources: options, copies of the images, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from patchmill.benchmarks.lib import machine, report
from patchmill.benchmarks.lib.report import Parser
from patchmill.benchmarks.lib.timing import Summary
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.sources import open_source

Table = tuple[str, Mapping[str, Summary], str]  # title, rows, format of a number


@dataclass(frozen=True)
class Settings:
    data: str
    copies: int
    recipe: str
    workers: int
    batch_size: int
    rounds: int
    json: str | None


def read_settings(name: str, about: str | None, argv: Sequence[str] | None) -> Settings:
    """The options of the benchmark `name`."""
    parser = Parser(name, about)
    parser.add_argument("--data", default="scenes:256", help="a folder, or scenes:N (%(default)s)")
    parser.add_argument("--copies", type=int, default=4, help="copies of each image (%(default)s)")
    parser.add_argument("--recipe", default="dino", help="a preset with its knobs, or a YAML file")
    parser.add_argument(
        "--workers", type=int, default=machine.cores(), help="per contender (default: all cores)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    arguments = vars(parser.parse_args(argv))
    for option in ("copies", "workers", "batch_size", "rounds"):
        if not arguments[option] > 0:
            raise MillError(
                f"--{option.replace('_', '-')} must be above 0, not {arguments[option]}"
            )
    report.check_writable(arguments["json"])
    return Settings(**arguments)


def write_copies(settings: Settings, folder: Path) -> None:
    """Write each image of the data `copies` times, as files."""
    source = open_source(settings.data)
    with track("writing files", len(source) * settings.copies) as advance:
        for copy in range(settings.copies):
            (folder / f"copy{copy:04d}").mkdir(parents=True)
            for id in range(len(source)):
                (folder / f"copy{copy:04d}" / f"{id:08d}.jpg").write_bytes(source.read(id))
                advance(1)


def show(heading: str, tables: Sequence[Table], notes: Sequence[str]) -> None:
    """Print the heading, each table of medians and quartiles, and the notes."""
    console = Console(highlight=False)
    console.print(
        f"{machine.cpu()}, {machine.cores()} cores; {heading}\n", style="dim", markup=False
    )
    for title, summaries, form in tables:
        table = report.new_table(title, "median", "low to high")
        for name, one in summaries.items():
            quartiles = f"{one.low:{form}} to {one.high:{form}}"
            table.add_row(name, f"[bold]{one.median:{form}}[/]", quartiles)
        console.print(table)
        console.print()
    for note in notes:
        console.print(note, style="dim", markup=False)


def write(
    settings: Settings, results: Mapping[str, Mapping[str, Summary]], notes: Sequence[str]
) -> None:
    """Write the results to the file of --json, if given."""
    if not settings.json:
        return
    options = {name: value for name, value in asdict(settings).items() if name != "json"}
    rounded: dict[str, Any] = {
        title: {name: _rounded(summary) for name, summary in summaries.items()}
        for title, summaries in results.items()
    }
    report.write_json(settings.json, {**options, **rounded, "notes": list(notes)})


def _rounded(summary: Summary) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(summary).items()}
