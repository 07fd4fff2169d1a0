"""Run checks, several at a time, each in its own process group with a timeout."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from patchmill.benchmarks.lib import process_group
from trust import result
from trust.check import Check, Form, Task
from trust.result import Result

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Plan:
    checks: Sequence[Check]
    form: Form
    seed: int
    out: Path
    jobs: int

    def path(self, check: Check) -> Path:
        return self.out / f"{check.name}.json"

    def done(self, check: Check) -> Result | None:
        """The result of an earlier run with the same inputs, if there is one to reuse."""
        found = result.read(self.path(check))
        same = found and (found.form, found.seed) == (self.form, self.seed)
        return found if found and same and found.state in ("sound", "broken") else None


def run(plan: Plan, resume: bool, say: Callable[[str], None]) -> Iterator[Result]:
    """Yield results as they come; checks with `alone` run after the others."""
    waiting = []
    for check in plan.checks:
        if resume and (found := plan.done(check)):
            yield found
        else:
            waiting.append(check)
    stop = threading.Event()
    for group, jobs in (
        ([check for check in waiting if not check.alone], plan.jobs),
        ([check for check in waiting if check.alone], 1),
    ):
        # Longest first, so that none runs alone at the end.
        group.sort(key=lambda check: -check.estimate(plan.form))
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(_one, check, plan, say, stop) for check in group]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise


def in_this_process(check: Check, task: Task, form: Form, path: Path) -> None:
    """Run a check and write its result, in a process started by `run`."""
    outcome = check.run(task)
    result.write(path, result.of_outcome(check, form, task.seed, outcome))


def _one(check: Check, plan: Plan, say: Callable[[str], None], stop: threading.Event) -> Result:
    form, seed, path = plan.form, plan.seed, plan.path(check)
    lacking = check.lacks()
    if lacking or not check.tries(form):
        why = f"needs {lacking}" if lacking else f"not in the {form} form"
        ended = result.left_out(check, form, seed, why)
        result.write(path, ended)
        return ended
    folder, log = plan.out / check.name, path.with_suffix(".log")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for old in (path, log):
        old.unlink(missing_ok=True)
    limit = check.limit(form)
    say(f"running   {check.name}: {check.title}, {check.tries(form):,} tries")
    argv = ["--only", check.name, "--form", form, "--seed", str(seed), "--out", str(plan.out)]
    command = [sys.executable, str(HERE), *argv]
    modules = os.pathsep.join(filter(None, sys.path))  # for the processes that checks start
    environment = os.environ | {"PYTHONPATH": modules, "PYTHONUNBUFFERED": "1"}
    process = process_group.run(command, environment, HERE.parents[1], log, limit, stop)
    ended = result.of_process(check, form, seed, process, path, log)
    result.write(path, ended)
    if ended.state == "sound":
        shutil.rmtree(folder, ignore_errors=True)
    return ended
