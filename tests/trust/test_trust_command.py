"""The command that runs the checks: results, timeouts, crashes, resuming."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from patchmill.benchmarks.lib import process_group
from patchmill.loaders.common.errors import MillError
from trust import __main__ as command
from trust import result, runner, suite
from trust.check import Check, Outcome, Task


def even(task: Task) -> Outcome:
    """A check whose odd tries fail."""
    outcome = Outcome()
    for index in range(task.tries):
        outcome.tried("even" if index % 2 == 0 else "odd")
        if index % 2:
            outcome.failed(f"{index} is odd, and drew {task.random(index).random():.3f}")
    return outcome


def fine(task: Task) -> Outcome:
    outcome = Outcome(figures={"folder": task.folder.name})
    for _ in range(task.tries):
        outcome.tried()
    return outcome


even.__module__ = fine.__module__ = "trust.odd.planted"
EVEN = Check("even", "odd numbers", even, short=2, standard=4, long=6, seconds=1)
FINE = Check("fine", "nothing", fine, short=1, standard=3, long=9, seconds=2)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two checks, which run in this process as they would in their own."""
    monkeypatch.setattr(suite, "checks", lambda: {"even": EVEN, "fine": FINE})

    def run(argv: list[str], *_: object) -> process_group.Ended:
        command.main(argv[2:])
        return process_group.Ended(0, 0.1, True)

    monkeypatch.setattr(process_group, "run", run)


@pytest.mark.usefixtures("planted")
def test_results_are_written_shown_and_reused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "all.json"), "--seed", "7"]
    with pytest.raises(MillError, match="some checks are not sound"):
        command.main(argv)
    shown = capsys.readouterr().out
    (fault,) = [line for line in shown.splitlines() if line.startswith("even: odd numbers")]
    assert fault.split()[3:] == ["4", "2", "0", "0"]
    drawn = Task("even", 4, tmp_path, seed=7).random(1).random()
    assert f"1 is odd, and drew {drawn:.3f}" in shown
    even, fine = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert (even["state"], even["ends"], even["part"]) == ("broken", "even 2, odd 2", "odd")
    assert (fine["state"], fine["tries"], fine["survived"]) == ("sound", 3, 3)
    assert not (tmp_path / "out" / "fine").exists() and (tmp_path / "out" / "even").is_dir()
    with pytest.raises(MillError, match="some checks are not sound"):
        command.main([*argv, "--resume"])
    assert "running" not in capsys.readouterr().out
    command.main([*argv[:2], "--seed", "8", "--resume", "--part", "fine"])
    assert "running" in capsys.readouterr().out  # other inputs are another run


@pytest.mark.usefixtures("planted")
def test_the_plan_and_mistakes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--dry-run", "--form", "long", "--jobs", "1"])
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[:2]] == [
        ["even", "6"],
        ["fine", "9"],
    ]
    with pytest.raises(MillError, match="there is no check odder: choose from even, fine"):
        command.main(["--part", "odder"])


def test_crashes_and_hangs_are_failures(tmp_path: Path) -> None:
    log = tmp_path / "even.log"
    log.write_text("$ python\nat input 17\nFatal Python error: Bus error\n")
    for ended, state, why in (
        (process_group.Ended(-7, 1.0, True), "died", "signal 7 ended it"),
        (process_group.Ended(0, 1.0, True), "died", "exit status 0"),  # without a result
        (process_group.Ended(-2, 99.0, False), "hangs", "it did not end within 99 s"),
    ):
        found = result.of_process(EVEN, "short", 0, ended, tmp_path / "even.json", log)
        assert (found.state, found.why.split(";")[0]) == (state, why)
        assert found.why.endswith("last line of even.log: Fatal Python error: Bus error")


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    plan = runner.Plan([EVEN], "short", 0, tmp_path, 1)
    (tmp_path / "even.json").write_text('{"name": "even"')
    with pytest.raises(MillError, match="remove it to rerun that check"):
        next(runner.run(plan, True, lambda text: None))


def test_a_process_group_ends_once_another_thread_stops_it(tmp_path: Path) -> None:
    stop = threading.Event()
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    found: list[process_group.Ended] = []

    def run() -> None:
        command = [sys.executable, "-c", code]
        found.append(process_group.run(command, os.environ, tmp_path, tmp_path / "log", 600, stop))

    thread = threading.Thread(target=run)
    thread.start()
    while not (said := _lines(tmp_path / "log")[1:]):
        time.sleep(0.02)
    stop.set()
    thread.join(60)
    assert not found[0].in_time
    with pytest.raises(ProcessLookupError):
        os.kill(int(said[0]), 0)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
