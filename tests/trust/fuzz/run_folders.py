"""Damaged files of runs: training resumes, and the report, the page and the table show the run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import helpers_report

from patchmill.cluster import status
from patchmill.loaders.common.errors import MillError
from patchmill.training.report import page, run_data
from patchmill.training.runtime import display, record_files, records, run_folder
from patchmill.training.runtime.record_files import EVALUATIONS, LOG
from patchmill.training.watch.events import Stream
from patchmill.training.watch.shelf import Shelf
from trust.check import Check, Outcome, Task
from trust.fuzz.damage import damaged

STEPS, RESUMED = 24, 18  # in the log, and the step of the checkpoint
LEDGER = b'{"id": 3, "where": "a/b.jpg", "reason": "it is cut off"}\n'


def fuzz(task: Task) -> Outcome:
    logging.getLogger("patchmill").setLevel(logging.CRITICAL)
    folder = helpers_report.full(task.folder / "run")
    for name in (LOG, EVALUATIONS):
        (folder / name).unlink()
    helpers_report.logged(folder, STEPS)
    (folder / "ledger-rank0.jsonl").write_bytes(LEDGER)
    sound = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    names = [name for name in sorted(sound) if not name.endswith(".png")]
    outcome = Outcome()
    for index in range(task.tries):
        draw = task.random(index)
        name = draw.choice([LOG, EVALUATIONS, run_folder.STATUS, draw.choice(names)])
        done, data = damaged(sound[name], draw)
        for other, content in sound.items():
            (folder / other).write_bytes(data if other == name else content)
        outcome.tried(name)
        for problem in _problems(folder):
            outcome.failed(f"{problem}: try {index}, {done} in {name}")
            break
        outcome.lost += _resumed(folder, outcome, f"try {index}, {done} in {name}")
    return outcome


def _problems(folder: Path) -> list[str]:
    """Problems of readers that cannot read the folder."""
    readers: dict[str, Callable[[], object]] = {
        "report": lambda: page.page(run_data.read(folder)),
        "watch": lambda: list(Stream(Shelf(folder), ["."]).news()),
        "summary": lambda: display.summary(folder),
        "status": lambda: status.run_row(folder, {}),
        "best": lambda: status.with_best("knn", [folder], [status.run_row(folder, {})]),
    }
    problems = []
    for name, reader in readers.items():
        try:
            reader()
        except MillError as error:
            if "\n" in str(error):
                problems.append(f"{name}: a bad error message: {error}")
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__} ({str(error)[:200]})")
    return problems


def _resumed(folder: Path, outcome: Outcome, what: str) -> int:
    """Continue the records like training; return the number of complete rows lost."""
    before = record_files.read_log(folder / LOG)
    kept = [row for row in before.rows if int(row[0]) <= RESUMED]
    try:
        run_folder.Status(folder, step=RESUMED)
        recorder = records.Recorder(folder, {}, start=RESUMED, tensorboard=False)
        recorder.scalars(RESUMED + 1, {"loss": 1.0})
        recorder.evaluation(RESUMED + 1, 1.0, {"knn": 0.5})
        recorder.close()
        after, log = record_files.read_log(folder / LOG), records.read(folder)
        last = records.evaluations(folder)[-1]
    except Exception as error:
        outcome.failed(f"resume: {type(error).__name__} ({str(error)[:200]}): {what}")
        return 0
    if after.bad or after.is_torn or log["step"][-1] != RESUMED + 1 or last["knn"] != 0.5:
        outcome.failed(f"resume: the records are incomplete: {what}")
    width = len(before.names)
    return len(kept) - sum(row[:width] in kept for row in after.rows[:-1])


CHECKS = (Check("fuzz-run-folders", "damaged files of runs", fuzz, 15, 4000, 50_000, 65),)
