"""Commands end without a traceback, whoever reads their output."""

from __future__ import annotations

import os
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
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered
    )
    assert process.stdout and process.stderr
    with process:
        if reader != "cat":
            if reader == "head":
                process.stdout.readline()
            process.stdout.close()
            return process.wait(), "", process.stderr.read()
        out, errors = process.communicate()
        return process.returncode, out, errors


def test_a_reader_that_stops_early_is_no_error():
    assert run("print('line\\n' * 100_000)", "head") == (1, "", "")
    assert run("print('line')") == (0, "line\n", "")


def test_a_command_that_fails_after_its_reader_is_gone_reports_only_its_error():
    late = "import time; time.sleep(0.3); print('line'); "
    assert run(f"{late} sys.exit('2 problems')", "nobody") == (1, "", "2 problems\n")
    assert run(f"{late} raise MillError('no')", "nobody") == (1, "", "error: no\n")


def test_untrusted_names_do_not_control_the_terminal():
    assert run(r"raise MillError('cannot read \x1b[2J\udce9.jpg')")[2] == (
        "error: cannot read \\x1b[2J\\xe9.jpg\n"
    )
    assert run(r"sys.exit('\x1b[2J differs')")[2] == "\\x1b[2J differs\n"
    assert run(r"print('\udce9.jpg')")[:2] == (0, "\\udce9.jpg\n")


def test_another_broken_pipe_is_a_bug():
    code, _, errors = run("raise BrokenPipeError('a worker has gone')")
    assert code == 1 and "BrokenPipeError: a worker has gone" in errors


def test_running_out_of_memory_or_threads_is_reported_in_one_line():
    for body, words in {
        "bytearray(1 << 60)": "no memory for this command (an allocation failed): use",
        "raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')": "2 GiB): use smaller",
        'raise RuntimeError("can\'t start new thread")': "there is no thread for this comma",
        "raise RuntimeError('Resource temporarily unavailable')": "there is no thread for this",
    }.items():
        code, out, errors = run(body)
        assert (code, out, errors.count("\n")) == (1, "", 1) and words in errors
    assert "Traceback" in run("raise RuntimeError('a bug')")[2]


def test_a_mistake_is_one_line():
    assert run("raise MillError('no such folder')") == (1, "", "error: no such folder\n")
