"""docs/guides/command.md names every command; tests/test_document_blocks.py runs its examples."""

from __future__ import annotations

import re
from pathlib import Path

import patchmill
from patchmill.command.completion.scripts import SCRIPTS
from patchmill.command.table import COMMANDS

GUIDE = (Path(patchmill.__file__).parents[1] / "docs" / "guides" / "command.md").read_text()


def test_the_table_is_that_of_the_overview():
    rows = re.findall(r"^\| `patchmill ([\w-]+)` \| (.*?)(?:: \[.*)? \|$", GUIDE, re.MULTILINE)
    assert dict(rows) == {word: command.title for word, command in COMMANDS.items()}


def test_every_shell_has_its_line():
    assert all(f"patchmill completion {shell}" in GUIDE for shell in SCRIPTS)
