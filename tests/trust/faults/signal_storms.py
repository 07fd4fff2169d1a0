"""Signals of all kinds, at any time and in any number, to a run that is then allowed to finish."""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import time
from pathlib import Path

import helpers_ranks
import helpers_runs

from patchmill.training.ranks.signals import SIGNALS
from patchmill.training.runtime import records, run_folder
from patchmill.training.runtime.run_folder import STOPPED
from trust.check import Check, Outcome, Task

MOST_STORMS = 2  # before the run may finish
LONGEST_S = 4.0  # of a storm, about the length of the run

PROGRAM = """
import contextlib, time
from patchmill.training.ranks.prompt_end import prompt_end
from patchmill.training.runtime import display

for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
    os.environ.pop(name, None)
display.configure_logging(True)
parent = os.getpid()
if {signals} and not os.fork():
    for wait, number in {signals}:
        time.sleep(wait)
        if os.getppid() != parent:
            break
        with open({sent!r}, "a") as file:
            print(time.monotonic(), file=file)
        os.kill(parent, number)
    os._exit(0)

def main():
    try:
        with prompt_end():
            helpers_runs.train(helpers_runs.config({out!r}, train__epochs=2, evaluate="knn"))
    except signals.Stopped:
        signals.exit_now()

run_command(main)
"""


def run(task: Task) -> Outcome:
    """Storm a run once or twice, then let it finish; the result must equal an undisturbed run's."""
    outcome, seconds = Outcome(), list[float]()
    whole = task.folder / "whole"
    if problem := _train(whole, [], seconds):
        raise RuntimeError(f"training fails without a signal: {problem}")
    for index in range(task.tries):
        rng, out = task.random(index), task.folder / "stormed"
        shutil.rmtree(out, ignore_errors=True)
        outcome.tried()
        problem = ""
        for _ in range(rng.randint(1, MOST_STORMS)):
            problem = problem or _train(out, _storm(rng), seconds)
        if problem := problem or _train(out, [], seconds):
            outcome.failed(f"seed {task.seed}, storm {index}: {problem}")
            continue
        _compare(outcome, f"seed {task.seed}, storm {index}", whole / "run", out / "run")
        task.note(f"{index + 1} storms, {outcome.failures} failures")
    if seconds:
        outcome.figures["seconds from the first signal to the end"] = {
            "median": round(statistics.median(seconds), 2),
            "most": round(max(seconds), 2),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
        }
    return outcome


def _storm(rng: random.Random) -> list[tuple[float, int]]:
    """Waits and signals: a single one, a few, or very many."""
    count = rng.choice((1, 2, 5, 50))
    rest = rng.uniform(0, LONGEST_S)
    waits = [rest, *(rng.choice((0, 0.001, 0.1, 0.5)) for _ in range(count - 1))]
    return [(wait, int(rng.choice(SIGNALS))) for wait in waits]


def _train(out: Path, storm: list[tuple[float, int]], seconds: list[float]) -> str:
    """Train under a storm; return the problem with how the process ends.

    The time from the first signal to the end is appended to `seconds`.
    """
    said = out / "said"
    shutil.rmtree(said, ignore_errors=True)
    said.mkdir(parents=True)
    program = PROGRAM.format(signals=storm, out=str(out), sent=str(said / "sent"))
    (ended,) = helpers_ranks.run(program, said, size=1)
    if storm and ended.code and (said / "sent").exists():  # else it had finished before
        first = float((said / "sent").read_text().split()[0])
        seconds.append(time.monotonic() - first)
    numbers = {number for _, number in storm}
    allowed = {0, *(STOPPED for _ in numbers), *(-n for n in numbers), *(128 + n for n in numbers)}
    if ended.code in allowed and "Traceback" not in ended.err:
        return ""
    # Before and after training, Ctrl-C reaches Python's own handler.
    last = ended.err.rstrip().split("\n")[-1]
    if signal.SIGINT in numbers and last in ("interrupted", "KeyboardInterrupt"):
        return ""
    return f"{storm} ended it with {ended.code}: {ended.err[-500:]}"


def _compare(outcome: Outcome, name: str, whole: Path, folder: Path) -> None:
    try:
        helpers_runs.assert_same(helpers_runs.final(whole), helpers_runs.final(folder))
    except AssertionError as error:
        outcome.failed(f"{name}: weights differ: {error}")
        return
    wanted, steps = records.read(whole)["step"], records.read(folder)["step"]
    outcome.lost += len(set(wanted) - set(steps))
    outcome.repeated += len(steps) - len(set(steps))
    state = run_folder.read_status(folder).get("state")
    left = [path.name for path in folder.rglob("*.part")]
    if state != "done" or left:
        outcome.failed(f"{name}: its state is {state}, and it leaves {left}")
    elif records.evaluations(whole) != records.evaluations(folder):
        outcome.failed(f"{name}: evaluations differ")


CHECKS = (
    Check(
        "signals", "a run under storms of signals, then left to finish",
        run, short=0, standard=15, long=300, seconds=120,
    ),
)  # fmt: skip
