"""Describe a machine and a run for an issue: patchmill bug-report [run=DIR] [--out FILE]"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import patchmill
from patchmill.command.doctor.command import text as doctor_text
from patchmill.command.doctor.examine import GROUPS, examine
from patchmill.command.redact import redact
from patchmill.loaders.common.arguments import Parser
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import write_atomic

LOG_LINES, ROWS, LEDGER_ENTRIES = 60, 5, 5
# Variables that change how programs run.
VARIABLES = re.compile(
    r"^(OMP|MKL|NCCL|CUDA|NUMBA|TRITON|TORCH|PYTORCH|PATCHMILL|GLOO)_|^(RANK|WORLD_SIZE)$"
)
RANK = re.compile(r"rank \d+ of \d+ on ([\w.-]+)")  # a line of each rank's log
QUESTION = """\
<!-- What did you do, what did you expect, and what happened instead? -->

(write it here, and read the rest before you post it: names and secrets are removed only as far as a
program can recognise them)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    run = _run_folder(args.arguments)
    out = Path(args.out) if args.out else None
    if out and not out.absolute().parent.is_dir():
        raise MillError(f"cannot write {out}: there is no folder {out.parent}")
    print("examining this machine, which takes a few seconds", file=sys.stderr)
    report = redact("\n".join(_report(run)), _hosts(run))
    if out is None:
        print(report)
        return
    try:
        write_atomic(out, report + "\n")
    except OSError as error:
        raise MillError(f"cannot write {out}: {error.strerror or error}") from None
    print(f"written to {out}: read it before you post it")


def parser() -> Parser:
    options = Parser(
        "patchmill bug-report",
        "[run=DIR]",
        "Describe this machine and a run in Markdown, for an issue: versions, what patchmill "
        "doctor says, the run's settings, its last log lines and its unreadable images. Home "
        "paths, names of users and hosts, tokens and passwords are removed.",
        ["patchmill bug-report", "patchmill bug-report run=runs/dilo-scenes-demo --out report.md"],
    )
    options.add_argument("arguments", nargs="*", metavar="run=DIR", help="the folder of a run")
    options.add_argument("--out", metavar="FILE", help="write it to this file")
    return options


def _run_folder(arguments: Sequence[str]) -> Path | None:
    folder = None
    for word in arguments:
        key, equals, text = word.partition("=")
        if key != "run" or not equals:
            raise MillError(f"cannot read {word!r}: write run=DIR, as in run=runs/NAME")
        folder = Path(text)
    if folder and not any((folder / name).exists() for name in ("config.yaml", "status.json")):
        raise MillError(f"there is no run in {folder}: name its folder, as in run=runs/NAME")
    return folder


def _hosts(run: Path | None) -> list[str]:
    """Hosts named in the run's own files."""
    if run is None:
        return []
    from patchmill.cluster.job import record
    from patchmill.training.runtime import run_folder

    job = record.read(run)
    logs = "\n".join(map(_read, job.merged_logs())) if job else ""
    return [run_folder.read_status(run).get("host", ""), *set(RANK.findall(logs))]


# -------------------------------------------------------------------------------------- the report


def _report(run: Path | None) -> Iterator[str]:
    yield from ("### What happened", "", QUESTION)
    yield from ("### Versions", "", f"patchmill {patchmill.__version__}{_commit()}", "")
    variables = [f"{k}={v}" for k, v in sorted(os.environ.items()) if VARIABLES.search(k)]
    yield from _block("environment", "\n".join(variables))
    yield from _block("patchmill doctor", "\n".join(doctor_text(examine(GROUPS))), is_open=True)
    if run:
        yield from ("", "### The run", "")
        yield from _run(run)


def _run(run: Path) -> Iterator[str]:
    yield from _block("config.yaml", _read(run / "config.yaml"), "yaml")
    yield from _block("status.json", _read(run / "status.json"), "json")
    header, *rows = _read(run / "log.csv").splitlines() or [""]
    last = rows[-ROWS:]
    yield from _block(
        f"log.csv, the last {len(last)} rows", "\n".join([header, *last]) if last else ""
    )
    evaluations = _read(run / "evaluations.jsonl").splitlines()[-ROWS:]
    yield from _block(
        f"evaluations.jsonl, the last {len(evaluations)}", "\n".join(evaluations), "json"
    )
    yield from _job(run)
    yield from _ledgers(run)


def _job(run: Path) -> Iterator[str]:
    """The failure of the last job and the end of its log."""
    from patchmill.cluster.job import failures, record

    job = record.read(run)
    if job is None:
        yield from (
            "It was not started by patchmill submit, so there is no log: copy the terminal output.",
            "",
        )
        return
    yield from _block("failure", "\n".join(failures.describe(job)), is_open=True)
    for path in job.merged_logs()[-1:]:
        lines = _read(path).splitlines()[-LOG_LINES:]
        yield from _block(f"the last {len(lines)} lines of the log", "\n".join(lines), is_open=True)


def _ledgers(run: Path) -> Iterator[str]:
    """The number of unreadable samples, and the reasons for some."""
    lines = [
        line for path in sorted(run.glob("ledger*.jsonl")) for line in _read(path).splitlines()
    ]
    yield f"Unreadable samples in the ledger: {len(lines)}"
    shown = []
    for line in lines[:LEDGER_ENTRIES]:
        try:
            entry = json.loads(line)
            shown.append(f"{entry['where']}: {entry['reason']}")
        except (ValueError, KeyError, TypeError):
            shown.append(line)
    yield from _block(f"the first {len(shown)}", "\n".join(shown))


# -------------------------------------------------------------------------------------------- parts


def _block(
    title: str, content: str, language: str = "text", is_open: bool = False
) -> Iterator[str]:
    """A collapsible section; nothing if it has no content."""
    if not content.strip():
        return
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    yield from (f"<details{' open' if is_open else ''}><summary>{title}</summary>", "")
    yield from (f"{fence}{language}", content.rstrip(), fence, "", "</details>", "")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _commit() -> str:
    """The commit of a checkout; empty for an installed package."""
    root = Path(patchmill.__file__).resolve().parents[1]
    if not (root / "setup.cfg").is_file():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f", commit {done.stdout.strip()}" if done.returncode == 0 else ""
