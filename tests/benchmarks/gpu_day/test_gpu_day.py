"""gpu_day: independence of steps, limits, resuming, and the command."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchmill.benchmarks import gpu_day
from patchmill.benchmarks.lib import process_group
from patchmill.benchmarks.lib.gpu_day import day as days
from patchmill.benchmarks.lib.gpu_day import here, page, record
from patchmill.benchmarks.lib.gpu_day.day import Day
from patchmill.benchmarks.lib.gpu_day.here import Here
from patchmill.benchmarks.lib.gpu_day.record import Entry
from patchmill.benchmarks.lib.gpu_day.step import Step
from patchmill.benchmarks.lib.gpu_day.steps import NAMES
from patchmill.loaders.common.errors import MillError


# ------------------------------------------------------------------------------------------- plan
def test_the_plan_skips_steps_that_no_longer_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "look", lambda: Here(""))
    gpu_day.main(["--dry-run", "--cores", "16", "--minutes", "4"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert set(NAMES) <= set(lines)
    assert " min" in lines["facts"] and "not reached" in lines["kernels-parity"]
    gpu_day.main(["--dry-run", "--cores", "16", "--part", "kernels-time,facts", "--part", "stress"])
    shown = capsys.readouterr().out
    assert [name for name in NAMES if f"\n{name} " in shown] == ["facts", "kernels-time", "stress"]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--part", "renderer-tim"], "there is no step 'renderer-tim'; did you mean"),
        (["--minutes", "0"], "--minutes must be above 0, not 0"),
        (["--faster"], "unrecognized arguments: --faster"),
    ],
)
def test_mistakes_are_one_sentence(argv: list[str], sentence: str) -> None:
    with pytest.raises(MillError, match=sentence):
        gpu_day.main(argv)


# ------------------------------------------------------------------------------ made-up steps


def step(name: str, code: str, seconds: float = 1, **more: Any) -> Step:
    return Step(name, f"{name} it", ("-c", code), seconds, gpu=False, **{"writes": "", **more})


JSON = "import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text('{\"rows\": []}')"
GOOD, BROKEN = step("good", "print('fine')"), step("broken", "raise OSError('no luck')")
LOST = step("lost", "pass", under=("no-such-program", "--strict"))
FIGURES = step("figures", JSON, writes="json")
SILENT = step("silent", "pass", writes="json")


def made(tmp_path: Path, *steps: Step, minutes: float = 13.0) -> Day:
    machine = Here("", 2, has_program=lambda name: True)
    return Day(steps, machine, tmp_path, minutes)


def run(day: Day, entries: dict[str, Entry] | None = None, **more: Any) -> dict[str, Entry]:
    entries = {} if entries is None else entries
    assert days.run(day, entries, lambda text: None, **more)
    assert record.read(day.out) == entries
    return entries


def test_no_step_stops_the_next(tmp_path: Path) -> None:
    found = run(made(tmp_path, BROKEN, LOST, SILENT, FIGURES, GOOD))
    states = {name: entry.state for name, entry in found.items()}
    assert states == {
        "broken": "failed",
        "lost": "failed",
        "silent": "failed",
        "figures": "held",
        "good": "held",
    }
    assert found["broken"].why == "exit status 1: OSError: no luck"
    assert found["lost"].why.startswith("cannot be started: ")
    assert found["silent"].why == "it ended without a result"
    assert (tmp_path / "good.log").read_text().endswith("fine\n")


def test_steps_without_their_requirements_are_skipped(tmp_path: Path) -> None:
    found = run(made(tmp_path, replace(GOOD, gpu=True), replace(BROKEN, needs=("no_module",))))
    assert {entry.state for entry in found.values()} == {"left out"}
    assert found["good"].why == "torch finds no CUDA device"
    assert found["broken"].why == "not installed: no_module"


def test_minutes_are_kept(tmp_path: Path) -> None:
    """With a clock that advances 70 s per reading."""
    clock = iter(range(0, 10**6, 70))
    steps = [step(f"step{n}", "pass", seconds=60) for n in range(4)]
    found = run(made(tmp_path, *steps, minutes=4), now=lambda: next(clock))
    assert [entry.state for entry in found.values()] == ["held"] * 2 + ["not reached"] * 2
    assert found["step2"].why == "takes about 60 s, and 25 s were left"
    assert found["step0"].limit == 150 and found["step1"].limit == 95  # of what is left


SLOW = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("asked to end", flush=True)
    {then}
"""


@pytest.mark.parametrize("then", ["raise", "time.sleep(600)"], ids=["obeys", "goes on"])
def test_a_step_beyond_its_limit_is_ended_with_all_it_has_started(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "GRACE", 0.5)
    log, command = tmp_path / "log", [sys.executable, "-c", SLOW.format(then=then)]
    ended = process_group.run(command, os.environ, tmp_path, log, limit=1.5)
    assert not ended.in_time and ended.status
    lines = log.read_text().splitlines()
    pid = int(next(line for line in lines if line.isdigit()))
    assert "asked to end" in lines
    for _ in range(100):  # it was ended, which may take a busy machine a moment
        if alive(pid):
            time.sleep(0.1)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_tests_that_ran_before_the_limit_are_counted(tmp_path: Path) -> None:
    tests = step("tests", "", writes="tests")
    rows = [{"test": "a.py::b", "outcome": "passed", "seconds": 1, "reason": ""}] * 3
    rows.append({"test": "x/a.py::c", "outcome": "failed", "seconds": 1, "reason": "off by 9"})
    lines = "\n".join(map(json.dumps, rows))
    tests.result(tmp_path).write_text(f'{lines}\n{{"test": "cut o')
    entry = record.judge(tests, process_group.Ended(-2, 61.0, False), tmp_path, 60, 30)
    assert (entry.state, entry.why) == ("out of time", "stopped after 61 s; 1 failed, 3 passed")
    assert entry.failures == ["a.py::c: off by 9"]
    entry = record.judge(tests, process_group.Ended(1, 9.0, True), tmp_path, 60, 30)
    assert (entry.state, entry.why) == ("failed", "1 failed, 3 passed")


def test_ctrl_c_ends_immediately_and_resume_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = step("slow", "import time; time.sleep(600)")
    day, entries = made(tmp_path, GOOD, slow, FIGURES), dict[str, Entry]()
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    run(made(tmp_path, GOOD), entries)
    timer.start()
    assert not days.run(day, entries, lambda text: None)
    states = [entries[name].state for name in ("good", "slow", "figures")]
    assert states == ["held", "interrupted", "not reached"]
    assert record.read(tmp_path) == entries
    again, ran = record.read(tmp_path), list[str]()
    quick = made(tmp_path, GOOD, step("slow", "pass"), FIGURES)
    assert days.run(quick, again, ran.append)
    assert [line.split()[1] for line in ran if line.startswith("running")] == ["slow", "figures"]
    assert {entry.state for entry in again.values()} == {"held"}


def test_a_rehearsal_is_no_run(tmp_path: Path) -> None:
    """A run that continues from it runs everything."""
    gpu = replace(GOOD, gpu=True)
    rehearsed = run(replace(made(tmp_path, gpu), rehearse=True))
    assert rehearsed["good"].state == "held" and rehearsed["good"].rehearsed
    assert run(made(tmp_path, gpu), rehearsed)["good"].state == "left out"


def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / record.FILE).write_text("{")
    with pytest.raises(MillError, match="remove it to start over"):
        record.read(tmp_path)


# --------------------------------------------------------------------------- the whole command


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    steps = (GOOD, replace(FIGURES, gpu=True), BROKEN)
    monkeypatch.setattr(gpu_day, "STEPS", steps)
    monkeypatch.setattr(gpu_day, "NAMES", [each.name for each in steps])
    monkeypatch.setattr(here, "look", lambda: Here("", 2))
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("few_steps")
def test_a_run_without_a_gpu_ends_with_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_day.main(["--out", str(tmp_path / "day")])
    text = (tmp_path / "day" / page.FILE).read_text()
    assert text in capsys.readouterr().out
    held, _, rest = text.partition("## What did not")
    failed, _, missing = rest.partition("## What was not reached, or left out")
    assert "**good**" in held.partition("## What held")[2]
    assert "**broken**" in failed and "OSError: no luck" in failed and "broken.log" in failed
    assert "**figures** (figures it): torch finds no CUDA device" in missing
    monkeypatch.setattr(here, "look", lambda: Here("Some GPU", 2))
    gpu_day.main(["--out", str(tmp_path / "day"), "--part", "figures"])
    text = (tmp_path / "day" / page.FILE).read_text()
    assert "Some GPU" in text and "torch finds no CUDA" not in text
    assert all(f"**{name}**" in text for name in ("good", "figures", "broken"))


@pytest.mark.usefixtures("few_steps")
def test_an_interrupted_run_prints_how_to_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process_group, "run", interrupt)
    with pytest.raises(MillError, match=r"gpu_day\.py --resume --out \S+ --minutes 13$"):
        gpu_day.main(["--out", str(tmp_path / "day")])
    assert "interrupted" in (tmp_path / "day" / page.FILE).read_text()
