"""The benchmark of operations, on small views, and its picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from patchmill.benchmarks import extra
from patchmill.loaders.common.errors import MillError


def test_every_operation_has_a_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extra, "CONTENDERS", extra.CONTENDERS[::4])
    rows = extra.measure(32, rounds=1)
    assert [row["name"] for row in rows] == [extra.RENDERED, *(c[0] for c in extra.CONTENDERS)]
    assert all(value > 0 for row in rows for value in list(row.values())[1:])


def test_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    extra.main(["--picture", str(tmp_path / "operations.png")])
    torch.set_num_threads(threads)
    assert Image.open(tmp_path / "operations.png").size == (620, 436)


def test_mistakes_are_one_sentence(tmp_path: Path):
    with pytest.raises(MillError, match="--size must be at least 16"):
        extra.main(["--size", "4"])
    with pytest.raises(MillError, match="cannot write"):
        extra.main(["--json", str(tmp_path / "none" / "a.json")])
