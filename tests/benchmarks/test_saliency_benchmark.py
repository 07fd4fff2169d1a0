"""The saliency benchmark measures every method; its peer's maps resemble ours."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from patchmill.benchmarks import saliency as benchmark
from patchmill.loaders import saliency


def test_speed_and_quality_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path))
    command = ["saliency.py", "--data", "scenes(count=2, size=64)", "--rounds", "1"]
    out = str(tmp_path / "out.json")
    monkeypatch.setattr(sys, "argv", [*command, "--scenes", "2", "--json", out])
    benchmark.main()
    report = json.loads(Path(out).read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert {"gs", "mc", "rbd"} <= set(rows)
    assert report["images"]["count"] == 2
    for row in rows.values():
        assert row["images_per_s"] > 0 and 0 <= row["mae"] <= 1 and 0 <= row["f_measure"] <= 1


def test_the_map_of_the_peer_resembles_ours() -> None:
    pytest.importorskip("skimage")
    from patchmill.benchmarks.peers.saliency import rbd

    ys, xs = np.mgrid[:200, :260]
    disc = np.hypot(ys - 100, xs - 120) < 50
    noise = np.random.default_rng(0).integers(-9, 10, (200, 260, 1))
    image = (np.where(disc[..., None], (190, 60, 50), (90, 140, 80)) + noise).astype(np.uint8)
    ours = saliency.estimate(image).plane.astype(int)
    assert abs(ours - rbd(image)).mean() < 0.04 * 255


def test_f_measures_of_a_perfect_an_empty_and_a_full_map() -> None:
    mask = np.zeros((10, 10), bool)
    mask[:2] = True
    assert benchmark.f_measure(mask * np.uint8(255), mask) == pytest.approx(1)
    assert benchmark.f_measure(np.zeros((10, 10), np.uint8), mask) == 0
    full = benchmark.f_measure(np.full((10, 10), 255, np.uint8), mask)
    assert full == pytest.approx(1.3 * 0.2 / (0.3 * 0.2 + 1))
