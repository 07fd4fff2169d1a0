"""Parsers under atheris: inputs that reach new code are kept and mutated further.

Each parser runs in its own process (`guided_process`), with the seeds and pass criteria of the
other checks in this folder. atheris has wheels for Python 3.11 to 3.13 on Linux: `pip install
atheris`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from trust.check import Check, Outcome, Task


class Parser(NamedTuple):
    """A check whose `opening.fuzz` atheris drives, and the modules to instrument."""

    check: str  # module:function
    modules: tuple[str, ...]  # of patchmill, with their submodules
    part: int = 0  # which call of `opening.fuzz`


_SHARDS = ("loaders.sources.shards", "loaders.files")
_LISTS = ("loaders.sources.lists",)
_MASKS = (
    *("loaders.copypaste.mask_file", "loaders.copypaste.mask_meta", "loaders.copypaste.mask_png"),
    "loaders.files",
)

PARSERS = {
    "tar": Parser("trust.fuzz.indexes:fuzz_tars", _SHARDS),
    "index": Parser("trust.fuzz.below_checksums:fuzz_indexes", _SHARDS),
    "set-index": Parser("trust.fuzz.indexes:fuzz_set_indexes", _SHARDS),
    "beton": Parser("trust.fuzz.containers:fuzz_betons", ("loaders.sources.beton",)),
    "masks": Parser("trust.fuzz.below_checksums:fuzz_masks", _MASKS),
    "parquet": Parser("trust.fuzz.containers:fuzz_parquets", ("loaders.sources.parquet",)),
    "zip": Parser("trust.fuzz.containers:fuzz_zips", ("loaders.sources.archives", "zipfile")),
    "lmdb": Parser("trust.fuzz.containers:fuzz_lmdbs", ("loaders.sources.archives",)),
    "list.csv": Parser("trust.fuzz.containers:fuzz_lists", _LISTS),
    "list.tsv": Parser("trust.fuzz.containers:fuzz_lists", _LISTS, 1),
    "list.jsonl": Parser("trust.fuzz.containers:fuzz_lists", _LISTS, 2),
    "store": Parser("trust.fuzz.below_checksums:fuzz_stores", ("loaders.decoded",)),
    "checkpoint": Parser(
        "trust.fuzz.below_checksums:fuzz_checkpoints", ("training.runtime", "zipfile")
    ),
    "image-header": Parser("trust.fuzz.guided_targets:image_headers", ("loaders.decode",)),
    "mask-png": Parser("trust.fuzz.guided_targets:mask_pngs", ("loaders.copypaste.mask_png",)),
    "recipe": Parser(
        "trust.fuzz.guided_targets:recipes",
        ("loaders.recipe", "loaders.recipe_load", "loaders.recipe_parts", "loaders.common"),
    ),
    "coco": Parser("trust.fuzz.guided_targets:coco_files", ("training.evaluation.detect",)),
}

_PROCESS = Path(__file__).with_name("guided_process.py")
_MILLISECONDS = 200  # average limit per run


def guided(task: Task) -> Outcome:
    outcome, each = Outcome(), -(-task.tries // len(PARSERS))
    for name in PARSERS:
        _run(name, task, each, outcome)
        task.note(f"{name}: {outcome.tries:,} inputs, {outcome.failures} failures")
    return outcome


def _run(name: str, task: Task, tries: int, outcome: Outcome) -> None:
    """Try inputs in a process; inputs that crash it are kept in the task's folder."""
    folder = task.folder / name
    folder.mkdir(parents=True)
    found, log = folder / "outcome.json", folder / "log"
    arguments = [name, str(tries), str(task.seed), str(folder), str(found)]
    paths = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "0"}
    with open(log, "wb") as file:
        limit = 120 + tries * _MILLISECONDS / 1000
        try:
            code = subprocess.run(
                [sys.executable, str(_PROCESS), *arguments],
                stdout=file, stderr=file, env=environment, timeout=limit,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
    text = log.read_text(errors="replace")
    if found.exists():
        one = json.loads(found.read_bytes())
        outcome.tries += one["tries"]
        outcome.ends[name] += one["tries"]
        outcome.failures += one["failures"]
        outcome.texts += [f"{name}: {text}" for text in one["texts"]]
        reached = re.findall(r"cov: (\d+)", text)
        outcome.figures[f"places in code: {name}"] = int(reached[-1]) if reached else 0
        if not reached or reached[-1] == "0":
            outcome.tried("unseen")
            outcome.failed(f"{name}: none of its code was covered")
        return
    outcome.tried("ended")
    kept = ", ".join(str(path) for path in folder.glob("crash-*")) or "none was kept"
    last = text.strip().splitlines()[-1:] or [""]
    outcome.failed(f"{name}: the process ended with {code} ({last[0][:200]}); its input: {kept}")


CHECKS = (
    Check(
        "guided",
        "inputs chosen by the code of parsers that they reach (atheris)",
        guided,
        0,
        1500 * len(PARSERS),
        50_000 * len(PARSERS),
        60,
        needs=("atheris", "lmdb"),
    ),
)
