"""The same images in every format: what is compared, and that it is told."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

from patchmill.benchmarks import formats
from patchmill.loaders.common.errors import MillError


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def ask(monkeypatch: pytest.MonkeyPatch, *asked: str) -> None:
    monkeypatch.setattr(sys, "argv", ["formats.py", *asked])
    formats.main()


def test_all_formats_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    small = "dino(local_crops=1, global_size=32, local_size=16)"
    ask(
        monkeypatch, "--data", "scenes(count=6, size=64)", "--copies", "2", "--recipe", small,
        "--batch-size", "4", "--rounds", "1", "--workers", "1", "--json", str(out),
    )  # fmt: skip
    found = json.loads(out.read_text())
    ours = {"folder", "shards", "beton", "folder, cold", "shards, cold", "beton, cold"}
    assert ours <= set(found["images_per_s"])
    assert all(row["median"] > 0 for row in found["images_per_s"].values())
    for pair in ("shards / folder", "beton / folder"):
        above, below = pair.split(" / ")
        rates = found["images_per_s"]
        ratio = rates[above]["median"] / rates[below]["median"]
        assert found["ratios"][pair]["median"] == pytest.approx(ratio, rel=0.01)
    left_out = any("FFCV is left out" in note for note in found["notes"])
    assert left_out != (formats.VIEWS_BY_FFCV in found["images_per_s"])
    assert "shards, cold / folder, cold" in capsys.readouterr().out
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("patchmill-")]


def test_mistakes_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MillError, match="--copies must be above 0"):
        ask(monkeypatch, "--copies", "0")
