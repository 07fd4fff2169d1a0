"""The benchmark of tuned loaders: rates, choices and their ratio."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchmill.benchmarks import autotune
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines.tuning import iteration


def test_all_disks_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    for name, seconds in (("SETTLING_S", 0.02), ("WINDOW_S", 0.05), ("LONGEST_S", 0.5)):
        monkeypatch.setattr(iteration, name, seconds)
    monkeypatch.setattr(autotune.timing, "wait_until_idle", lambda: None)
    out, small = tmp_path / "out.json", "simclr(size=16)"
    argv = ["--data", "scenes(count=6, size=48)", "--recipe", small, "--batch-size", "8"]
    autotune.main([*argv, "--seconds", "0.1", "--rounds", "1", "--json", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == list(autotune.DISKS)
    for row in rows:
        assert row["fixed"] > 0 and row["auto"] > 0 and row["settled_s"] > 0
        assert "workers=" in row["chosen"] and ", because " in row["chosen"]
    assert "20 ms a read" in capsys.readouterr().out


def test_a_number_below_one_is_an_error() -> None:
    with pytest.raises(MillError, match="--rounds must be above 0, not 0"):
        autotune.main(["--rounds", "0"])
