"""Documents quote the committed figures, and name files that exist.

Above a table that quotes a result stands
`<!-- table: benchmarks/results/NAME.json COLUMN ... -->`, and in each of its rows the result's own
name: `| <!-- NAME --> anything | FIGURE | ... |`. A figure may be `MEAN ± STD %`; a result
without a column has a cell without figures.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers_documents import documents

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = documents()
FOLDERS = "loaders|kernels|training|cluster|benchmarks|examples|tests|docs|patchmill"
PATH = re.compile(rf"(?<![\w./:-])(?:{FOLDERS})/[\w./-]*")
MODULE = re.compile(r"\bpatchmill(?:\.\w+)+")
TABLE = re.compile(r"<!-- table: (\S+) ([^>]*?) -->\n(.*?)\n(?:\n|$)", re.DOTALL)
ROW = re.compile(r"^\| <!-- (.+?) -->.*?\|(.*)\|$", re.MULTILINE)
TABLES = [
    (path.name, *found)
    for path in DOCUMENTS
    if path.name != "README.md"  # whose table is another, see test_readme.py
    for found in TABLE.findall(path.read_text() + "\n")
]


@pytest.mark.parametrize(("document", "results", "columns", "table"), TABLES)
def test_figures_are_the_committed_ones(document: str, results: str, columns: str, table: str):
    rows = {row["name"]: row for row in json.loads((ROOT / results).read_text())["rows"]}
    quoted = ROW.findall(table)
    assert len(quoted) >= 2
    for name, cells in quoted:
        for column, cell in zip(columns.split(), cells.split("|"), strict=True):
            values = [rows[name].get(column), rows[name].get(f"{column}_std")]
            assert is_quoted(cell.strip(" *"), values), (name, column)


def is_quoted(cell: str, values: list[float | None]) -> bool:
    """True if the cell has the value, or has mean and standard deviation, or has none as they."""
    if values[0] is None:
        return not re.search(r"\d", cell)
    mean, plus_minus, std = cell.partition(" ± ")
    unit = " %" if cell.endswith("%") and plus_minus else ""
    same = like(mean + unit, values[0]) == mean + unit
    return same and (not plus_minus or (values[1] is not None and std == like(std, values[1])))


def like(cell: str, value: float) -> str:
    """The value as the cell writes its own: with so many decimals, in %, as a ratio."""
    number = re.search(r"-?[\d,.]+", cell)
    assert number, cell
    decimals = len(number[0].partition(".")[2])
    scaled = value * 100 if "%" in cell else value
    return cell.replace(number[0], f"{scaled:,.{decimals}f}")


def test_a_figure_that_is_another_is_found():
    assert like("8.3 %", 0.0829) == "8.3 %"
    assert like("1,035 µs", 1035.3) == "1,035 µs"
    assert like("1.08 x", 1.0916) == "1.09 x"
    assert like("-69.0", -68.26) == "-68.3"
    assert is_quoted("71.2 ± 0.5 %", [0.7123, 0.0049]) and is_quoted("+6.1 ± 3.8 %", [0.061, 0.038])
    assert not is_quoted("71.2 ± 0.6 %", [0.7123, 0.0049]) and is_quoted("", [None, None])
    assert not is_quoted("71.2 %", [None, None]) and not is_quoted("71.2 ± 0.5 %", [0.71, None])


def test_every_result_is_listed_with_its_command():
    listed = (ROOT / "docs/results.md").read_text()
    results = [path.name for path in (ROOT / "benchmarks/results").glob("*.json")]
    short = {"methods-demo-seeds.json": "[-seeds]", "comparison-selfie.json": "[-selfie]"}
    assert [name for name in sorted(results) if short.get(name, name) not in listed] == []


def test_every_preset_has_a_picture_in_the_guide():
    from patchmill.loaders import presets

    guide = (ROOT / "docs/guides/recipes.md").read_text()
    missing = [name for name in presets.ALL if f"(../recipes/{name}.png)" not in guide]
    assert missing == [], "python docs/make_pictures.py NAME draws one"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_named_exists(document: Path):
    text = document.read_text()
    paths = {found.rstrip("./") for found in PATH.findall(text)}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_module_named_exists(document: Path):
    missing = []
    for name in set(MODULE.findall(document.read_text())):
        path = ROOT.joinpath(*name.split(".")[1:])
        module = path if path.is_dir() else path.with_suffix(".py")
        if not (module.exists() or path.parent.is_dir() or path.parent.with_suffix(".py").exists()):
            missing.append(name)
    assert missing == []
