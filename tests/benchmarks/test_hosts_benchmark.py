"""The benchmark of hosts measures their usual views and patchmill's on the same images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from patchmill.benchmarks import hosts as benchmark
from patchmill.benchmarks.lib.host_loaders import HOSTS, Settings
from patchmill.benchmarks.lib.sample import Sample
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source

NEEDS = {"lightly": "lightly", "stable-pretraining": "stable_pretraining"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    benchmark.write_classes(Sample(open_source("scenes(count=4, size=64)"), 4), tmp_path)
    return Settings(tmp_path, batch_size=2, workers=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HOSTS)
def test_both_make_the_same_views(name: str, settings: Settings) -> None:
    pytest.importorskip(NEEDS.get(name, "timm"), reason=f"{name} is not installed")
    host = HOSTS[name]
    sides = [host.before(host.recipe, settings), benchmark.after(host, settings)]
    shapes = [sorted(shapes_in(next(iter(batches)))) for batches in sides]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == host.recipe.total


def shapes_in(batch: object) -> list[tuple[int, ...]]:
    """Shapes of all images in a batch of any structure."""
    if isinstance(batch, torch.Tensor):
        return [tuple(batch.shape)] if batch.ndim == 4 else []
    if isinstance(batch, str | None):
        return []
    values = batch.values() if isinstance(batch, dict) else list(batch)  # type: ignore[call-overload]
    return [shape for value in values for shape in shapes_in(value)]


def test_the_results_name_both_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    short = ["--batch-size", "2", "--steps", "1", "--rounds", "1", "--step-ms", "1"]
    data = ["--data", "scenes(count=6, size=64)", "--workers", "1"]
    benchmark.main(["--hosts", "timm", *short, *data, "--json", str(out)])
    (row,) = json.loads(out.read_text())["rows"]
    assert row["name"] == "timm" and row["before_ms"] >= 0 <= row["after_ms"]
    assert "data wait in a step" in capsys.readouterr().out


def test_unknown_hosts_are_refused() -> None:
    with pytest.raises(MillError, match="there is no host 'keras': the hosts are dino"):
        benchmark.main(["--hosts", "keras"])
