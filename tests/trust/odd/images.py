"""Odd images through every pipeline: PIL's pixels, or an entry in the ledger."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from helpers_beton import encode, overwrite_image, write_beton

from patchmill.loaders.sources.beton.source import Beton
from trust.check import Check, Outcome, Task
from trust.odd.pictures import all_pictures
from trust.odd.pil import Encoded, Epoch, as_pil_sees, only_pil_minds

LEAST_FOR_FFCV = 100  # files: compiling its pipeline takes longer than a hundred files


def run(task: Task) -> Outcome:
    outcome, named = Outcome(), all_pictures()
    names = sorted(named)
    task.random(0).shuffle(names)
    names = names[: task.tries]
    files = [named[name] for name in names]
    wanted = Epoch(as_pil_sees(files, _lies(names)), "threads", task.folder / "pil.jsonl")
    pipelines = ["threads"]
    if importlib.util.find_spec("nvidia.dali"):
        pipelines.append("dali")
    for pipeline in pipelines:
        found = Epoch(Encoded("odd images", files), pipeline, task.folder / f"{pipeline}.jsonl")
        minds = [pipeline == "dali" and only_pil_minds(data) for data in files]
        _compare(outcome, pipeline, names, found.differs(wanted, minds.__getitem__))
    if importlib.util.find_spec("ffcv") and len(names) >= LEAST_FOR_FFCV:
        _compare_ffcv(task.folder, outcome, names, files)
    outcome.figures["files"] = len(names)
    outcome.figures["read by PIL"] = len(names) - len(wanted.bad)
    return outcome


def _compare(outcome: Outcome, pipeline: str, names: list[str], differences: list[str]) -> None:
    outcome.tries += len(names)
    for difference in differences:
        number = re.search(r"\d+", difference)
        name = names[int(number[0])] if number else "all"
        outcome.failed(f"{pipeline}: {difference} ({name})")


def _compare_ffcv(folder: Path, outcome: Outcome, names: list[str], files: list[bytes]) -> None:
    """Odd bytes in place of JPEGs in a .beton, padded with zeros."""
    rooms = [encode(index) + bytes(len(data)) for index, data in enumerate(files)]
    path = write_beton(folder / "odd.beton", rooms)
    for index, data in enumerate(files):
        overwrite_image(path, index, data)
    source = Beton(path)
    stored = [source.read(index) for index in range(len(source))]
    wanted = Epoch(as_pil_sees(stored, _lies(names)), "threads", folder / "pil-ffcv.jsonl")
    found = Epoch(path, "ffcv", folder / "ffcv.jsonl")
    _compare(outcome, "ffcv", names, found.differs(wanted))


def _lies(names: list[str]) -> list[int]:
    """JPEGs that PIL reads, and that are rejected because of their headers."""
    return [index for index, name in enumerate(names) if name.startswith("lie")]


CHECKS = (
    Check(
        "odd-images", "odd images through threads, DALI and FFCV, against PIL", run,
        short=50, standard=400, long=400, seconds=60,
    ),
)  # fmt: skip
