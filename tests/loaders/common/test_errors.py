"""Commands end without a traceback, whoever reads their output."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from patchmill.loaders.common.errors import MillError, run_command
def main():
    {body}
run_command(main)
"""


def run(body: str, reader: str = "cat") -> tuple[int, str, str]:
    program = [sys.executable, "-c", PROGRAM.format(body=body)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    with process:
        if reader == "head":
            process.stdout.readline()
            process.stdout.close()
            return process.wait(), "", process.stderr.read()
        out, errors = process.communicate()
        return process.returncode, out, errors


def test_a_reader_that_stops_early_is_no_error():
    assert run("print('line\\n' * 100_000)", "head") == (1, "", "")
    assert run("print('line')") == (0, "line\n", "")


def test_another_broken_pipe_is_a_bug():
    code, _, errors = run("raise BrokenPipeError('a worker has gone')")
    assert code == 1 and "BrokenPipeError: a worker has gone" in errors


def test_a_mistake_is_one_line():
    assert run("raise MillError('no such folder')") == (1, "", "error: no such folder\n")
