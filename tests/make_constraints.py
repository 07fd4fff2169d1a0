"""Write constraints.txt: the package versions that this environment was tested with.

python tests/make_constraints.py
"""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PATH = ROOT / "constraints.txt"
HEAD = """\
# Versions that all tests passed with: pip install -e . -c constraints.txt
# Written by: make constraints. What setup.cfg allows is wider; take updates of security at once.
"""


def required() -> dict[str, list[Requirement]]:
    """Requirements of setup.cfg by extra; those without an extra under the empty name."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    sections = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {extra: list(_requirements(text)) for extra, text in sections.items()}


def _requirements(text: str) -> Iterator[Requirement]:
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield Requirement(line.strip())


def installed() -> dict[str, str]:
    """Name -> version of installed packages of setup.cfg and all their dependencies."""
    found: dict[str, str] = {}
    pending = [requirement for group in required().values() for requirement in group]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        fresh = name not in found
        found[name] = re.sub(r"\+.*", "", package.version)  # +cu130 is not on PyPI
        for text in (package.requires or []) if fresh or requirement.extras else []:
            needed = Requirement(text)
            extras = [{"extra": extra} for extra in (*requirement.extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(extra) for extra in extras):
                if canonicalize_name(needed.name) not in found or needed.extras:
                    pending.append(needed)
    found.pop("patchmill", None)
    return dict(sorted(found.items()))


def main() -> None:
    lines = [f"{name}=={version}\n" for name, version in installed().items()]
    python = ".".join(map(str, sys.version_info[:2]))
    PATH.write_text(f"{HEAD}# Python {python}\n{''.join(lines)}", encoding="utf-8")
    print(f"{PATH}: {len(lines)} packages")


if __name__ == "__main__":
    main()
