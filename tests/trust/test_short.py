"""Short forms of all trust checks."""

from pathlib import Path

import pytest

from trust import suite
from trust.check import Check, Task

CHECKS = {name: check for name, check in suite.checks().items() if check.short}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_short_form_is_sound(check: Check, tmp_path: Path) -> None:
    if lacking := check.lacks():
        pytest.skip(f"needs {lacking}")
    outcome = check.run(Task(check.name, check.short, tmp_path))
    assert outcome.tries and not outcome.failures, outcome.texts
    assert (outcome.lost, outcome.repeated) == (0, 0)
