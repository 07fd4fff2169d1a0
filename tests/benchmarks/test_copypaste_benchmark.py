"""The copy-paste benchmark compares the same views of the same images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from patchmill.benchmarks import copypaste as benchmark
from patchmill.benchmarks.lib import paste_inputs
from patchmill.kernels.views.decisions import ON_IMAGE, PASTE_NEVER, ROW
from patchmill.loaders import presets
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source

FIELDS = {"paste", "background", "mask_sigma", "background_y", "background_x"}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path))


def test_every_background_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.json"
    command = ["copypaste.py", "--data", "scenes(count=4, size=64)", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--paste", "0.9", "--json", str(out)])
    benchmark.main()
    result = json.loads(out.read_text())
    rows = {row["name"]: row for row in result["rows"]}
    decoding = [
        benchmark.DECODE_IMAGES,
        benchmark.DECODE_MASKS,
        benchmark.DECODE_BACKGROUNDS,
    ]
    assert list(rows) == ["moco_v2", "grey", "texture", "images", *decoding]
    assert rows["moco_v2"]["ratio"] == 1
    assert all(row["us_per_image"] > 0 and row["ratio"] > 0 for row in rows.values())
    assert result["images"]["masked"] == 4 and result["images"]["pasted_views"] > 0.5
    assert result["paste"] == 0.9 and "machine" in result


def test_recipes_differ_only_in_the_paste_fields() -> None:
    images = paste_inputs.load_images(open_source("scenes:5"), 5)
    assert max(max(plane.shape) for plane in images.planes if plane is not None) == 256
    images.planes[2] = None
    plain = paste_inputs.make_case(presets.moco_v2(), images)
    pasted = paste_inputs.make_case(presets.dilo(paste=0.9, background="images"), images)
    for field in set(ROW.names or ()) - FIELDS:
        np.testing.assert_array_equal(plain.rows[field], pasted.rows[field])
    assert not any(plane is not None for plane in plain.planes + plain.backgrounds)
    on_image = (pasted.rows["paste"] == ON_IMAGE).any(1).tolist()
    assert on_image == [plane is not None for plane in pasted.planes]
    assert on_image == [image is not None for image in pasted.backgrounds]
    assert not on_image[2] and sum(on_image) >= 3
    assert (pasted.rows["paste"][2] == PASTE_NEVER).all()


def test_a_missing_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["copypaste.py", "--device", "cuda"])
    with pytest.raises(MillError, match="no CUDA device"):
        benchmark.main()
