"""The benchmark of copy-paste compares the same views of the same images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from patchmill.benchmarks import copypaste as benchmark
from patchmill.benchmarks.lib import paste_cases
from patchmill.kernels.views.decisions import ON_IMAGE, PASTE_NEVER, ROW
from patchmill.loaders import presets
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source

FIELDS = {"paste", "background", "mask_sigma", "background_y", "background_x"}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path))


def test_it_reports_every_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.json"
    command = ["copypaste.py", "--data", "scenes(count=4, size=64)", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--paste", "0.9", "--json", str(out)])
    benchmark.main()
    found = json.loads(out.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    decoding = [benchmark.IMAGES, benchmark.MASKS, benchmark.BEHIND]
    assert list(rows) == ["moco_v2", "grey", "texture", "images", *decoding]
    assert rows["moco_v2"]["ratio"] == 1
    assert all(row["us_per_image"] > 0 and row["ratio"] > 0 for row in rows.values())
    assert found["images"]["masked"] == 4 and found["images"]["pasted_views"] > 0.5
    assert found["paste"] == 0.9 and "machine" in found


def test_all_recipes_have_the_same_views_but_for_the_paste() -> None:
    pictures = paste_cases.gathered(open_source("scenes:5"), 5)
    assert max(max(plane.shape) for plane in pictures.planes if plane is not None) == 256
    pictures.planes[2] = None
    plain = paste_cases.case(presets.moco_v2(), pictures)
    pasted = paste_cases.case(presets.dilo(paste=0.9, background="images"), pictures)
    for field in set(ROW.names or ()) - FIELDS:
        np.testing.assert_array_equal(plain.rows[field], pasted.rows[field])
    assert not any(plane is not None for plane in plain.planes + plain.grounds)
    on_image = (pasted.rows["paste"] == ON_IMAGE).any(1).tolist()
    assert on_image == [plane is not None for plane in pasted.planes]
    assert on_image == [ground is not None for ground in pasted.grounds]
    assert not on_image[2] and sum(on_image) >= 3
    assert (pasted.rows["paste"][2] == PASTE_NEVER).all()


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["copypaste.py", "--device", "cuda"])
    with pytest.raises(MillError, match="no CUDA device"):
        benchmark.main()
