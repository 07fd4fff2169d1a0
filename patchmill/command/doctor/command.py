"""Report what this machine has and lacks: patchmill doctor [DATA]"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence

import patchmill
from patchmill.command.doctor.examine import DATA, DATA_SECONDS, GROUPS, examine
from patchmill.command.doctor.finding import MARKS, Finding
from patchmill.loaders.common.arguments import Parser
from patchmill.loaders.common.printed import say

Report = Mapping[str, Sequence[Finding]]

SEVERITY = ("broken", "warning", "absent")


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    report = examine({DATA: DATA_SECONDS}, args.data) if args.data else examine(GROUPS)
    if args.json:
        print(json.dumps(as_json(report), indent=1))
    else:
        say("\n".join(text(report)))
    if any(finding.state == "broken" for finding in findings(report)):
        sys.exit(1)


def parser() -> Parser:
    options = Parser(
        "patchmill doctor",
        "[DATA]",
        "Report what this machine has and can do, what is missing, what that costs, and the "
        "command that adds it. With DATA, open the data instead, read and decode some images, and "
        "report how fast that is and what would be faster.\n\nThe exit status is 1 if something "
        "that patchmill needs is broken.",
        ["patchmill doctor", "patchmill doctor photos", "patchmill doctor --json"],
    )
    options.add_argument("data", metavar="DATA", nargs="?", help="data, as for loaders.build")
    options.add_argument("--json", action="store_true", help="print everything as JSON")
    return options


def findings(report: Report) -> Iterator[Finding]:
    for group in report.values():
        yield from group


def as_json(report: Report) -> dict[str, object]:
    groups = {name: [each.as_json() for each in group] for name, group in report.items()}
    return {"patchmill": patchmill.__version__, **groups}


def text(report: Report) -> Iterator[str]:
    """One line per finding, followed by what could be better."""
    for name, group in report.items():
        if group:
            yield name
            for finding in group:
                yield from finding.lines()
            yield ""
    noted = [finding for finding in findings(report) if finding.state != "ok" and finding.cost]
    if not noted:
        yield "nothing is missing"
        return
    yield "what is missing (- optional), could be better (!), is broken (x), and what that costs"
    for finding in sorted(noted, key=lambda finding: SEVERITY.index(finding.state)):
        yield f"  {MARKS[finding.state]} {finding.name}: {finding.cost}"
        if finding.remedy:
            yield f"      {finding.remedy}"
