"""Documents quote the committed figures, and name files that exist.

docs/make_tables.py documents how tables name their results, and writes their figures.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from helpers_documents import ROOT, documents

sys.path.insert(0, str(ROOT / "docs"))
import make_tables
from make_tables import like, written

DOCUMENTS = documents()
FOLDERS = "loaders|kernels|training|cluster|benchmarks|examples|tests|docs|patchmill"
PATH = re.compile(rf"(?<![\w./:-])(?:{FOLDERS})/[\w./-]*")
MODULE = re.compile(r"\bpatchmill(?:\.\w+)+")
TABLES = [
    (path.name, found[2], found[3])
    for path in DOCUMENTS
    for found in make_tables.TABLE.finditer(path.read_text())
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_figures_are_the_committed_ones(document: Path):
    text = document.read_text()
    assert make_tables.refreshed(text) == text, "python docs/make_tables.py writes them"


@pytest.mark.parametrize(("document", "words", "table"), TABLES)
def test_every_row_of_a_table_is_a_result(document: str, words: str, table: str):
    names = [found[2] for found in make_tables.ROW.finditer(table)]
    rows, _ = make_tables.columns(words)[0]
    assert len(names) >= 2 and set(names) <= set(rows)


def test_changed_figures_are_rewritten():
    assert like("8.3 %", 0.0829) == "8.3 %"
    assert like("1,035 µs", 1035.3) == "1,035 µs"
    assert like("1.08 x", 1.0916) == "1.09 x"
    assert like("-69.0", -68.26) == "-68.3"
    assert written(" 71.2 ± 0.5 % ", 0.7123, 0.0049) == " 71.2 ± 0.5 % "
    assert written(" **+6.1 ± 3.8 %** ", 0.061, 0.039) == " **+6.1 ± 3.9 %** "
    assert written(" 71.2 ± 0.6 % ", 0.7123, 0.0049) == " 71.2 ± 0.5 % "
    assert written(" 71.2 ± 0.5 % ", 0.71) == " 71.0 % "
    dash = f" {make_tables.NONE} "
    assert written("", None) == "" and written(dash, None) == written(" 71.2 % ", None) == dash
    assert written(dash, 0.5, form=" **7 %** ") == " 50 % "
    assert (written(" no ", True), written(" x ", "simplejpeg")) == (" yes ", " simplejpeg ")


def test_every_result_is_listed_with_its_command():
    listed = (ROOT / "docs/results.md").read_text()
    results = [path.name for path in (ROOT / "benchmarks/results").glob("*.json")]
    assert [name for name in sorted(results) if name not in listed] == []


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
