"""Write the figures of all documents anew, from committed results: python docs/make_tables.py

Above a table that quotes results stands
`<!-- table: benchmarks/results/NAME.json COLUMN ... -->`, or several files with their columns, and
in each of its rows the results' own name: `| <!-- NAME --> anything | FIGURE | ... |`. A figure is
written as the cell had it before: with so many decimals, in percent, bold, signed, as `MEAN ± STD
%`; a COLUMN/interval has the 95 % interval of the mean there. Where a result has no such row or
column, there is a dash or nothing; a truth is yes or no. Claims of a result are rows of it, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TABLE = re.compile(r"(<!-- table: ([^>]*?) -->\n)(.*?)(?=\n\n|\n*\Z)", re.DOTALL)
ROW = re.compile(r"^(\| <!-- (.+?) -->.*?\|)(.*)\|$", re.MULTILINE)
CELL = re.compile(r"( *\**)(.*?)(\** *)")
NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?")
SIGNED = re.compile(r"^[ *]*[+]")
NONE = "\N{EN DASH}"

Row = Mapping[str, Any]


def main() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = path.read_text()
        if (new := refreshed(text)) != text:
            path.write_text(new)
            print(path.relative_to(ROOT))


def refreshed(text: str) -> str:
    """The page with the figures of all its tables as the results have them."""
    return TABLE.sub(lambda found: found[1] + _table(columns(found[2]), found[3]), text)


def columns(words: str) -> list[tuple[dict[str, Row], str]]:
    """Each column of a table's comment: the rows of its file by their names, and its own name."""
    rows: dict[str, Row] = {}
    listed = []
    for word in words.split():
        if word.endswith(".json"):
            content = json.loads((ROOT / word).read_text())
            rows = {row["name"]: row for row in (*content["rows"], *content.get("claims", ()))}
        else:
            listed.append((rows, word))
    return listed


def _table(listed: Sequence[tuple[dict[str, Row], str]], table: str) -> str:
    lines = [found[3].split("|") for found in ROW.finditer(table)]
    forms = [next(filter(NUMBER.search, cells), "") for cells in zip(*lines, strict=True)]

    def row(found: re.Match[str]) -> str:
        name, cells = found[2], found[3].split("|")
        new = []
        for cell, form, (rows, word) in zip(cells, forms, listed, strict=True):
            one = rows.get(name, {})
            column, _, spread = word.partition("/")
            width = one.get(f"{column}_{spread or 'std'}")
            new.append(written(cell, one.get(column), width, form))
        return f"{found[1]}{'|'.join(new)}|"

    return ROW.sub(row, table)


def written(cell: str, value: Any, std: float | None = None, form: str = "") -> str:
    """A cell with another value; `form` is a cell of its column, for one that had no figure."""
    match = CELL.fullmatch(cell)
    assert match
    before, text, after = match.groups()
    if value is None:
        text = NONE if NUMBER.search(text) else text
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, str):
        text = value
    else:
        text = _figure(text if NUMBER.search(text) else form.strip(" *"), value, std)
    return f"{before}{text}{after}"


def _figure(text: str, value: float, std: float | None) -> str:
    mean, plus_minus, deviation = text.partition(" ± ")
    if not plus_minus:
        return like(text, value)
    unit = " %" if text.endswith("%") else ""
    if std is None:
        return like(mean + unit, value)
    return f"{like(mean + unit, value).removesuffix(unit)} ± {like(deviation, std)}"


def like(cell: str, value: float) -> str:
    """The value as the cell writes its own: with so many decimals, in %, as a ratio, signed."""
    number = NUMBER.search(cell)
    assert number, cell
    decimals = len(number[0].partition(".")[2])
    scaled = value * 100 if "%" in cell else value
    sign = "+" if SIGNED.search(cell) else ""
    return cell.replace(number[0], f"{scaled:{sign},.{decimals}f}")


if __name__ == "__main__":
    main()
