"""Run folders, for `run=` and for commands that accept one."""

from __future__ import annotations

import os
from pathlib import Path

from patchmill.command.completion.word import Word

MARKS = ("config.yaml", "status.json", "job.json")  # every run folder has one of them
FOLDER = "runs/"


def folders(typed: str, prefix: str = "") -> list[Word]:
    """Runs and other folders in the folder typed so far, by default runs/."""
    parent = typed.rpartition("/")[0] + "/" if "/" in typed else ""
    if not parent and Path(FOLDER).is_dir() and FOLDER.startswith(typed):
        parent = FOLDER
    try:
        entries = sorted(os.scandir(Path(parent or ".").expanduser()), key=lambda each: each.name)
    except OSError:
        return []
    inside = [each for each in entries if each.is_dir() and not each.name.startswith(".")]
    return [_word(each, f"{prefix}{parent}{each.name}") for each in inside]


def _word(entry: os.DirEntry[str], text: str) -> Word:
    is_run = any(os.path.exists(os.path.join(entry.path, mark)) for mark in MARKS)
    return Word(text, "a run") if is_run else Word(f"{text}/")
