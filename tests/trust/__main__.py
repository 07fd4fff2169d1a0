"""Check that damaged bytes, kills, full disks, hostile input and changed rank counts do no harm.

    python tests/trust [--form short|standard|long] [--part NAME ...] [--json FILE] [--out DIR]
        [--resume] [--dry-run]

Every check runs in its own process group with a time limit, and its result is written as soon as it
ends. All inputs are derived from --seed, so that a failure can be reproduced. The standard form
takes half an hour on two cores; the long one has tens of thousands of inputs per parser, a hundred
kills and an hour at full rate, and takes a night; `make test` runs the short one.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":  # run this checkout's code
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from patchmill.benchmarks.lib import report
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.threads import available_cores
from patchmill.loaders.files.writing import output_errors
from trust import runner, suite, table
from trust.check import FORMS, Check, Task
from trust.result import Result
from trust.runner import Plan

OUT = "build/trust"


def main(argv: Sequence[str] | None = None) -> None:
    all_checks = suite.checks()
    settings = _settings(argv, all_checks)
    out = Path(settings.out).resolve()
    if settings.only:
        check, folder = all_checks[settings.only], out / settings.only
        folder.mkdir(parents=True, exist_ok=True)
        task = Task(check.name, check.tries(settings.form), folder, settings.seed, _note)
        path = out / f"{check.name}.json"
        runner.in_this_process(check, task, settings.form, path)
        return
    checks = [check for check in all_checks.values() if _chosen(check, settings.part)]
    plan = Plan(checks, settings.form, settings.seed, out, settings.jobs)
    if settings.dry_run:
        _show_plan(plan)
        return
    with output_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        results = _run(plan, settings)
    if any(result.state not in ("sound", "left out") for result in results):
        raise MillError(f"some checks are not sound; logs and inputs are in {out}")


def _run(plan: Plan, settings: Any) -> list[Result]:
    """Run the planned checks; print the table and write the results of those that ended."""
    before = signal.signal(signal.SIGTERM, _as_interrupt)
    found: dict[str, Result] = {}
    interrupted = False
    try:
        for result in runner.run(plan, settings.resume, _note):
            found[result.name] = result
            _note(table.line(result))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        signal.signal(signal.SIGTERM, before)
    results = [found[check.name] for check in plan.checks if check.name in found]
    table.show(results)
    if settings.json and results:
        rows = [result.as_row() for result in results]
        about = {"form": plan.form, "seed": plan.seed, "seconds": sum(r.seconds for r in results)}
        report.write_json(settings.json, {**about, "rows": rows})
    if interrupted:
        raise MillError("interrupted; the same command with --resume continues")
    return results


def _show_plan(plan: Plan) -> None:
    for check in plan.checks:
        lacking = check.lacks()
        about = f"left out: needs {lacking}" if lacking else f"{check.estimate(plan.form):6,.0f} s"
        print(f"{check.name:<28} {check.tries(plan.form):>9,} tries  {about}")
    seconds = sum(check.estimate(plan.form) for check in plan.checks if not check.lacks())
    print(f"about {seconds / 60 / plan.jobs:.0f} minutes, {plan.jobs} at a time")


def _settings(argv: Sequence[str] | None, checks: dict[str, Check]) -> Any:
    parts = sorted({check.part for check in checks.values()})
    parser = report.Parser("trust", __doc__)
    parser.prog, parser.usage = "tests/trust", "python tests/trust [options]"
    parser.add_argument("--form", choices=FORMS, default="standard", help="number of tries")
    parser.add_argument(
        "--part",
        action="append",
        default=[],
        metavar="NAME",
        help=f"a check, or a whole part: {', '.join(parts)}; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random draws (%(default)s)")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="concurrent checks")
    parser.add_argument("--out", default=OUT, metavar="DIR", help="folder for logs (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write results here")
    parser.add_argument("--resume", action="store_true", help="skip checks with a result in DIR")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and exit")
    parser.add_argument("--only", choices=checks, help="run this check in this process")
    settings = parser.parse_args(argv)
    for name in settings.part:
        if name not in (*checks, *parts):
            raise MillError(f"there is no check {name}: choose from {', '.join(checks)}")
    if settings.jobs < 1:
        raise MillError("--jobs must be at least 1")
    report.check_writable(settings.json)
    return settings


def _chosen(check: Check, parts: Sequence[str]) -> bool:
    return not parts or check.name in parts or check.part in parts


def _note(text: str) -> None:
    print(text, flush=True)


def _as_interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.path += suite.helper_folders()
    run_command(main)
