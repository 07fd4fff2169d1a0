"""The process of one group of probes; each finding is a line of JSON as soon as it is made."""

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
    os._exit(0)  # threads of libraries cannot hold it up


def run(probes: dict[str, Probe], arguments: Sequence[str]) -> Iterator[Finding]:
    """The findings of all probes; what a probe raises is one, too."""
    for name, probe in probes.items():
        try:
            yield from probe(*arguments)
        except Exception as error:  # of any library, on any machine
            is_missing = isinstance(error, ImportError)
            state: State = "broken" if is_missing else "warning"
            yield Finding(name, state, describe(error), "more cannot be said of it")
