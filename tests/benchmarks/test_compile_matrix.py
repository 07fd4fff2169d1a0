"""The compile matrix: a run of the tests becomes a row, and all committed rows fit."""

import json
from dataclasses import fields
from pathlib import Path

from patchmill.benchmarks import compile_matrix
from patchmill.benchmarks.lib.machine_code.budgets import Counts

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "compile-matrix.json"
OUTCOMES = """<testsuites><testsuite>
<testcase classname="tests.test_fast" name="test_fits[80]"/>
<testcase classname="tests.test_fast" name="test_fits[90]"><failure message="too much"/></testcase>
<testcase classname="tests.test_slow" name="test_fits"><skipped/></testcase>
</testsuite></testsuites>"""


def test_a_row_has_the_most_of_everything_and_what_failed():
    common = {"variant": "", "triton": "3.8", "architecture": 90, "loads": "", "stores": "2x16"}
    needs = [
        {"kernel": "gather", "registers": 80, "spilled": 16, "shared": 0},
        {"kernel": "pull", "registers": 96, "spilled": 0, "shared": 1024},
    ]
    numbers = dict.fromkeys((field.name for field in fields(Counts)), 1)
    usage = "\n".join(json.dumps({**numbers, **common, **it}) for it in needs)
    found = compile_matrix.summary(usage, OUTCOMES)
    kernels = found.pop("kernels")
    most = {"variants": 2, "registers": 96, "spilled": 16, "shared": 1024}
    assert found == {**most, "failures": ["tests.test_fast::test_fits[90]"]}
    assert list(kernels) == ["gather", "pull"]
    assert "stores 2x16, float64 1, registers 96" in kernels["pull"]


def test_the_version_is_that_of_the_folder(tmp_path: Path):
    (tmp_path / "triton-3.4.0.dist-info").mkdir()
    assert compile_matrix.version(tmp_path) == "3.4.0"


def test_in_the_committed_result_everything_fits():
    rows = json.loads(RESULT.read_text())["rows"]
    tritons = len(compile_matrix.TRITONS)
    assert len(rows) == tritons * len(compile_matrix.ARCHITECTURES)
    assert [row["name"] for row in rows if row["failures"]] == []
