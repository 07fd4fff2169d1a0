"""Run probes in separate processes: one that hangs or crashes loses only its own findings."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from patchmill.command.doctor.finding import Finding

# Group of probes -> timeout in seconds; importing torch from a cold network disk takes long.
GROUPS = {"machine": 30, "python": 180, "GPU": 240, "decoding": 180, "SLURM": 30}
DATA, DATA_SECONDS = "data", 600

# With the import path of this process, so that the same modules are found.
CHILD = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from patchmill.command.doctor.probe import main
main(sys.argv[2:])
"""


def examine(groups: Mapping[str, float], *arguments: str) -> dict[str, list[Finding]]:
    """Findings by group; all groups run concurrently, with the same arguments."""
    processes = {name: _start(name, arguments) for name in groups}
    try:
        return {name: _collect(name, processes[name], groups[name]) for name in groups}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def _start(name: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, json.dumps(sys.path), name, *arguments]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if name == DATA else subprocess.DEVNULL,  # the progress of reading
        text=True,
    )


def _collect(name: str, process: subprocess.Popen[str], seconds: float) -> list[Finding]:
    problem = ""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        problem = f"no answer within {seconds:g} s"
    findings = [Finding(**json.loads(line)) for line in output.splitlines() if line[:1] == "{"]
    code = process.returncode
    if not problem and code < 0:
        problem = f"the probe was ended by {signal.Signals(-code).name}"
    elif not problem and code:
        problem = f"the probe ended with exit status {code}"
    if problem:
        last = f", after {findings[-1].name}" if findings else ""
        findings.append(Finding(name, "broken", problem + last, "its findings are unknown"))
    return findings
