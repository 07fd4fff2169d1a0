"""The benchmark of small images, on few of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchmill.benchmarks import small_images
from patchmill.loaders.common.errors import MillError


def test_a_row_for_each_recipe_and_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(small_images, "RECIPES", small_images.RECIPES[:2])
    few = ["--data", "scenes(count=8, size=32)", "--batch-size", "4", "--rounds", "1"]
    cache, file = f"disk:{tmp_path}:1MB", tmp_path / "a.json"
    small_images.main([*few, "--seconds", "0.05", "--cache", cache, "--json", str(file)])
    rows = json.loads(file.read_text())["rows"]
    assert [row["workers"] for row in rows] == [1, 2, 1, 2]
    assert all(row["images_per_s"] > 0 for row in rows)
    assert [bool(row["gain"]) for row in rows] == [False, True, False, True]
    assert "eval(size=32" in capsys.readouterr().out


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MillError, match="must be positive"):
        small_images.main(["--data", "scenes:8", "--workers", "0"])
    with pytest.raises(MillError, match="cannot write"):
        small_images.main(["--data", "scenes:8", "--json", str(tmp_path / "none" / "a.json")])
