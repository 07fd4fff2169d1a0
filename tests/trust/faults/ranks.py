"""A rank that dies or hangs: the others end soon with one sentence, and the run can resume."""

from __future__ import annotations

import shutil
from pathlib import Path

import helpers_ranks
import helpers_runs

from patchmill.training.runtime import records
from trust.check import Check, Outcome, Task

RANKS = 2
FAULTS = ("killed", "hangs", "fails", "leaves")

PROGRAM = """
import datetime, time
from patchmill.training.runtime import display

failures.GRACE, failures.POLL = 2.0, 0.2
distributed.COLLECTIVE_TIMEOUT = datetime.timedelta(seconds=20)
rank, (fault, victim, at) = int(os.environ["RANK"]), {fault!r}
display.configure_logging(rank == 0)
calls, next_batch = [], hooks.Hooks.next_batch

def next_or_fault(self, batches):
    calls.append(1)
    if rank == victim and len(calls) == at:
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hangs":
            time.sleep(1000)
        if fault == "fails":
            raise MillError("the sky fell")
        os._exit(0)
    return next_batch(self, batches)

hooks.Hooks.next_batch = next_or_fault
run_command(lambda: helpers_runs.train(helpers_runs.config({out!r}, train__epochs=2)))
"""


def run(task: Task) -> Outcome:
    """Disturb a rank at any step; then train to the end with all ranks."""
    outcome = Outcome()
    whole = task.folder / "whole"
    ended = _train(whole, ("nothing", 0, 0))
    if any(one.code for one in ended):
        raise RuntimeError(f"training fails without a fault: {ended[0].err}")
    steps = helpers_runs.final(whole / "run")["step"]
    for index in range(task.tries):
        rng, out = task.random(index), task.folder / "disturbed"
        shutil.rmtree(out, ignore_errors=True)
        fault = FAULTS[index % len(FAULTS)], rng.randrange(RANKS), rng.randint(1, steps)
        name = f"seed {task.seed}, try {index}, {fault}"
        outcome.tried(fault[0])
        problem = _problem(fault[1], _train(out, fault))
        if not problem:
            last = _train(out, ("nothing", 0, 0))
            problem = "; ".join(one.err[-500:] for one in last if one.code)
        if problem:
            outcome.failed(f"{name}: {problem}")
            continue
        try:
            helpers_runs.assert_same(
                helpers_runs.final(whole / "run"), helpers_runs.final(out / "run")
            )
        except AssertionError as error:
            outcome.failed(f"{name}: weights differ: {error}")
            continue
        wanted, found = (records.read(folder / "run")["step"] for folder in (whole, out))
        outcome.lost += len(set(wanted) - set(found))
        outcome.repeated += len(found) - len(set(found))
        task.note(f"{index + 1} disturbed runs, {outcome.failures} failures")
    return outcome


def _train(out: Path, fault: tuple[str, int, int]) -> list[helpers_ranks.Ended]:
    said = out / "said"
    shutil.rmtree(said, ignore_errors=True)
    said.mkdir(parents=True)
    return helpers_ranks.run(PROGRAM.format(fault=fault, out=str(out)), said, RANKS, timeout=150)


def _problem(victim: int, ended: list[helpers_ranks.Ended]) -> str:
    """Problem with how the other ranks end."""
    for rank, one in enumerate(ended):
        if rank == victim:
            continue
        if one.code != 1:
            return f"rank {rank} ends with {one.code}: {one.err[-500:]}"
        if "error: " not in one.err or "Traceback" in one.err:
            return f"rank {rank} says {one.err[-1500:]}"
    return ""


CHECKS = (
    Check(
        "ranks", "a rank that dies, hangs, fails or leaves",
        run, short=0, standard=8, long=100, seconds=200,
    ),
)  # fmt: skip
