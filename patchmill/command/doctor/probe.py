"""The process of one group of probes; prints each finding as a line of JSON immediately."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from patchmill.command.doctor.finding import Finding, State, describe

Probe = Callable[..., Iterator[Finding]]

MODULES = {
    "machine": "machine",
    "python": "packages",
    "GPU": "gpu",
    "decoding": "decoding",
    "SLURM": "slurm",
    "data": "data",
}


def main(argv: Sequence[str]) -> None:
    group, *arguments = argv
    output = os.fdopen(os.dup(1), "w")  # libraries may print
    os.dup2(2, 1)
    module = importlib.import_module(f"patchmill.command.doctor.{MODULES[group]}")
    for finding in run(module.PROBES, arguments):
        print(json.dumps(finding.as_json()), file=output, flush=True)
    output.close()
    sys.stdout.flush()
    os._exit(0)  # without waiting for threads of libraries


def run(probes: dict[str, Probe], arguments: Sequence[str]) -> Iterator[Finding]:
    """Findings of all probes, including exceptions that they raise."""
    for name, probe in probes.items():
        try:
            yield from probe(*arguments)
        except Exception as error:  # from any library, on any machine
            is_missing = isinstance(error, ImportError)
            state: State = "broken" if is_missing else "warning"
            yield Finding(name, state, describe(error), "nothing more is known about it")
