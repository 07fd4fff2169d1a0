"""Docstrings say what a thing is or does in their first words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("loaders", "kernels", "training", "cluster", "benchmarks", "tests", "patchmill")
OPENINGS = {
    "What", "How", "Of", "As", "They", "Which", "Where", "It", "Its", "Whether", "Who", "That",
}  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_open_with_what_the_thing_is(folder: str):
    riddles = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                word = re.match(r"[A-Za-z]+", ast.get_docstring(node) or "")
                if word and word[0] in OPENINGS:
                    riddles.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}")
    assert riddles == []
