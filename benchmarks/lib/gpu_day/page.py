"""The final page of a run: figures next to targets, steps that held or failed, and the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib.gpu_day.record import Entry
from patchmill.benchmarks.lib.gpu_day.step import Step
from patchmill.benchmarks.lib.gpu_day.targets import FIGURES

FILE = "gpu-day.md"


def page(
    steps: Sequence[Step], entries: Mapping[str, Entry], about: Mapping[str, Any], out: Path
) -> str:
    """The page as Markdown that is also readable in a terminal."""
    return "\n".join(_lines(steps, entries, about, out)).rstrip() + "\n"


def _lines(
    steps: Sequence[Step], entries: Mapping[str, Entry], about: Mapping[str, Any], out: Path
) -> Iterator[str]:
    yield "# The first minutes on this machine"
    yield ""
    yield _headline(about, out)
    if any(entry.rehearsed for entry in entries.values()):
        yield ""
        yield "**Rehearsed on a CPU: this shows that the commands run, and nothing about a GPU.**"
    yield from _warnings(out)
    yield from _figures(entries, out)
    for title, states in (
        ("What held", ("held",)),
        ("What did not", ("failed", "out of time")),
        ("What was not reached, or left out", ("not reached", "interrupted", "left out")),
    ):
        found = [step for step in steps if _entry(step, entries).state in states]
        yield from ("", f"## {title}", "")
        if not found:
            yield "Nothing."
        for step in found:
            yield from _step(step, _entry(step, entries), out)


def _headline(about: Mapping[str, Any], out: Path) -> str:
    machine = _facts(out).get("machine", {})
    versions = machine.get("versions", {})
    gpu = machine.get("gpu", {})
    parts = [
        about.get("gpu") or "no CUDA device",
        f"driver {gpu['driver']}" if "driver" in gpu else "",
        f"Python {machine['python']}" if "python" in machine else "",
        *(f"{name} {versions[name]}" for name in ("torch", "triton") if name in versions),
        f"{about.get('cores')} cores",
        f"{about.get('minutes'):g} minutes on {about.get('date')}",
    ]
    return ", ".join(filter(None, parts))


def _warnings(out: Path) -> Iterator[str]:
    """Findings of `patchmill doctor` on the GPU that are broken or could be better."""
    found = _facts(out).get("findings", {}).get("GPU", [])
    noted = [each for each in found if each["state"] in ("broken", "warning")]
    if noted:
        yield ""
    for each in noted:
        remedy = f" ({each['remedy']})" if each.get("remedy") else ""
        yield f"- {each['name']} {each['text']}: {each.get('cost', '')}{remedy}"


def _figures(entries: Mapping[str, Entry], out: Path) -> Iterator[str]:
    rows = []
    for figure in FIGURES:
        entry = entries.get(figure.step)
        value = figure.value(out) if entry and not entry.rehearsed else None
        if value is None and not figure.target:
            continue
        shown = "not measured" if value is None else figure.text.format(value)
        reached = None if value is None else figure.reached(value)
        verdict = {None: "", True: "reached", False: "MISSED"}[reached]
        rows.append((figure.title, shown, figure.target, verdict))
    titles = ("figure", "measured", "target", "")
    widths = [max(len(row[i]) for row in (*rows, titles)) for i in range(4)]
    yield from ("", "## Figures and targets", "")
    for row in (titles, tuple("-" * width for width in widths), *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(cells)} |"


def _step(step: Step, entry: Entry, out: Path) -> Iterator[str]:
    took = f", {entry.seconds:.0f} s of about {entry.estimate:.0f}" if entry.seconds else ""
    state = "" if entry.state in ("held", "failed", "left out", "not reached") else entry.state
    about = "; ".join(filter(None, (state, entry.why)))
    yield f"- **{step.name}** ({step.title}{took}){': ' * bool(about)}{about}"
    yield from (f"  - {failure}" for failure in entry.failures)
    if entry.state in ("failed", "out of time"):
        yield f"  - its log: {out / f'{step.name}.log'}"


def _entry(step: Step, entries: Mapping[str, Entry]) -> Entry:
    return entries.get(step.name) or Entry("not reached", "was not asked for")


def _facts(out: Path) -> dict[str, Any]:
    try:
        return json.loads((out / "facts.json").read_text())
    except (OSError, ValueError):
        return {}
