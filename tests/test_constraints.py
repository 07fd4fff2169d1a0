"""constraints.txt pins the requirements of setup.cfg, to versions that it allows."""

from __future__ import annotations

import re

import make_constraints
import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

LINES = make_constraints.PATH.read_text(encoding="utf-8").splitlines()
PINNED = dict(line.split("==") for line in LINES if not line.startswith("#"))
REQUIRED = make_constraints.required()


def test_every_line_pins_one_version_of_one_package():
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*|#.*", line) for line in LINES)
    assert list(PINNED) == sorted(PINNED) and "patchmill" not in PINNED


@pytest.mark.parametrize("extra", ["", "dev"])
def test_requirements_of_training_and_tests_are_pinned(extra: str):
    needed = {canonicalize_name(requirement.name) for requirement in REQUIRED[extra]}
    assert needed <= set(PINNED)


def test_pinned_versions_are_within_the_bounds():
    wrong = [
        f"{requirement} of {extra or 'patchmill'}: {PINNED[name]}"
        for extra, requirements in REQUIRED.items()
        for requirement in requirements
        if (name := canonicalize_name(requirement.name)) in PINNED
        and not requirement.specifier.contains(Version(PINNED[name]), prereleases=True)
    ]
    assert not wrong and len(PINNED) > 50
