"""A .beton that is truncated while FFCV has it mapped is an error, and does not end the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers_beton import encode, write_beton

pytest.importorskip("ffcv")

PROGRAM = """
import os, sys
from patchmill import loaders
loader = loaders.build(sys.argv[1], "simclr(size=16)", 4, pipeline="ffcv", workers=1, prefetch=1)
batches = iter(loader)
next(batches)
os.truncate(sys.argv[1], 20_000)
try:
    for batch in batches:
        pass
except loaders.MillError as error:
    print(error)
"""


def test_a_truncated_beton_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    images = [encode(i) if i % 3 else encode(i, "PNG") for i in range(60)]  # some become raw
    path = write_beton(tmp_path / "a.beton", images)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True, timeout=300
    )
    assert done.returncode == 0
    assert done.stdout.startswith(f"{path} was truncated while it was in use")
