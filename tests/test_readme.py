"""The README holds: its snippets run, its figures are those of the committed results."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TABLES = re.findall(r"<!-- table: (\S+) -->\n(.*?)\n\n", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_run(number: int, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(SNIPPETS[number])
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("results", "table"), TABLES)
def test_figures_are_the_committed_ones(results: str, table: str) -> None:
    rows = {row["name"]: row for row in json.loads((ROOT / results).read_text())["rows"]}
    floor = rows["bare decode"]["images_per_s"]
    stated = {}
    for name, cells in re.findall(r"^\| <!-- (.+?) -->.*?\|(.*)\|$", table, re.MULTILINE):
        stated[name] = [cell.strip(" *") for cell in cells.split("|")]
    assert len(stated) >= 4
    for name, (speed, share) in stated.items():
        measured = rows[name]["images_per_s"]
        assert speed == f"{measured:.0f}"
        assert share == f"{measured / floor:.0%}".replace("%", " %")


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link.partition("#")[0]).exists(), link
