"""The matrix of compilers: a run of the tests becomes a row; in the committed ones all fits."""

import json
from pathlib import Path

from patchmill.benchmarks import compile_matrix

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "compile-matrix.json"
OUTCOMES = """<testsuites><testsuite>
<testcase classname="tests.test_fast" name="test_fits[80]"/>
<testcase classname="tests.test_fast" name="test_fits[90]"><failure message="too much"/></testcase>
<testcase classname="tests.test_slow" name="test_fits"><skipped/></testcase>
</testsuite></testsuites>"""


def test_a_row_has_the_most_of_everything_and_what_failed():
    needs = [
        {"kernel": "gather", "registers": 80, "spilled": 16, "shared": 0},
        {"kernel": "pull", "registers": 96, "spilled": 0, "shared": 1024},
    ]
    found = compile_matrix.summary("\n".join(map(json.dumps, needs)), OUTCOMES)
    most = {"variants": 2, "registers": 96, "spilled": 16, "shared": 1024}
    assert found == {**most, "failures": ["tests.test_fast::test_fits[90]"]}


def test_the_version_is_that_of_the_folder(tmp_path: Path):
    (tmp_path / "triton-3.4.0.dist-info").mkdir()
    assert compile_matrix.version(tmp_path) == "3.4.0"


def test_in_the_committed_result_everything_fits():
    rows = json.loads(RESULT.read_text())["rows"]
    tritons = len(compile_matrix.TRITONS)
    assert len(rows) == tritons * len(compile_matrix.ARCHITECTURES)
    assert [row["name"] for row in rows if row["failures"]] == []
