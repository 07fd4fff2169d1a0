"""The benchmark of small images: cached epochs, and a loader with a decoder that does nothing."""

from __future__ import annotations

import json
import sys
import tempfile

import numpy as np
import pytest

from patchmill.benchmarks import small_images
from patchmill.loaders.common.errors import MillError


def test_caches_and_the_stub_are_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, value in {"EPOCH": 64, "BATCH_SIZE": 8, "ROUNDS": 2}.items():
        monkeypatch.setattr(small_images, name, value)
    monkeypatch.setattr(small_images, "STAND_IN_WORKERS", (1, 2))
    out = tmp_path / "out.json"
    argv = ["--data", "scenes(count=6, size=32)", "--cache", "ram:1MB", "--seconds", "0.02"]
    monkeypatch.setattr(sys, "argv", ["small_images.py", *argv, "--json", str(out)])
    small_images.main()
    content = json.loads(out.read_text())
    labels = [*small_images.RECIPES, small_images.STAND_IN]
    names = [f"{label}, {many}" for label in labels for many in ("1 worker", "2 workers")]
    assert [row["name"] for row in content["rows"]] == names
    assert all(row["images_per_s"] > 0 and row["spread"] >= 0 for row in content["rows"])
    assert list(content["ratios"]) == [f"{label}: 2 workers / one" for label in labels]
    assert content["images"]["count"] == 6 and "µs per image" in capsys.readouterr().out


def test_the_stub_replaces_the_decoder(tmp_path):
    loader = small_images.without_decoding(4, 2, tmp_path / "bad.jsonl")
    views = next(iter(loader)).views["image"][:, 0].numpy()
    loader.close()
    grey = (127 / 255 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    assert (
        np.allclose(views, grey[:, None, None], atol=0.01) and not (tmp_path / "bad.jsonl").exists()
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--seconds", "0"], "--seconds must be above 0"),
        (["--data", "no/such"], "no folder"),
        (["--cache", "ram"], "cache must be"),
    ],
)
def test_a_mistake_is_one_sentence(argv, said):
    with pytest.raises(MillError, match=said) as caught:
        small_images.main(argv)
    assert "\n" not in str(caught.value)
