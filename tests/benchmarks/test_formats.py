"""The benchmark of formats: contenders, ratios and notes."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchmill.benchmarks import formats
from patchmill.loaders.common.errors import MillError


@pytest.fixture(autouse=True)
def temporary_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["formats.py", *arguments])
    formats.main()


def without_ffcv(turn: Callable[..., Any]) -> Callable[..., Any]:
    """The benchmark as on a machine without FFCV."""

    def warm(*arguments: Any, pipeline: str = "threads", **options: Any) -> Any:
        if pipeline == "ffcv":
            raise MillError("FFCV is not installed")
        return turn(*arguments, pipeline=pipeline, **options)

    return warm


# FFCV compiles a pipeline for each of its four contenders, which takes many seconds.
@pytest.mark.parametrize("with_ffcv", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_all_formats_in_one_run(
    with_ffcv: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not with_ffcv:
        monkeypatch.setattr(formats, "_warm_turn", without_ffcv(formats._warm_turn))
    out = tmp_path / "out.json"
    small = "dino(local_crops=1, global_size=32, local_size=16)"
    run(
        monkeypatch, "--data", "scenes(count=6, size=64)", "--copies", "2", "--recipe", small,
        "--batch-size", "4", "--rounds", "1", "--workers", "1", "--json", str(out),
    )  # fmt: skip
    content = json.loads(out.read_text())
    ours = {"folder", "shards", "beton", "folder, cold", "shards, cold", "beton, cold"}
    ours |= {"csv", "PIL items"}
    assert ours <= set(content["images_per_s"])
    assert {"folder", "beton", "csv", "PIL items"} <= set(content["reads_per_cpu_s"])
    assert all(row["median"] > 0 for row in content["images_per_s"].values())
    for pair in ("shards / folder", "beton / folder"):
        above, below = pair.split(" / ")
        rates = content["images_per_s"]
        ratio = rates[above]["median"] / rates[below]["median"]
        assert content["ratios"][pair]["median"] == pytest.approx(ratio, rel=0.01)
    skipped = any("FFCV is skipped" in note for note in content["notes"])
    assert skipped != (formats.VIEWS_BY_FFCV in content["images_per_s"])
    assert skipped or with_ffcv
    assert "shards, cold / folder, cold" in capsys.readouterr().out
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("patchmill-")]


def test_errors_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MillError, match="--copies must be above 0"):
        run(monkeypatch, "--copies", "0")
