"""Published recipes of dense patches and copy-paste give the same batches in every pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pipelines import make_loader
from helpers_recipes_alike import beton_of_scenes, together

RECIPE = together(
    "dilo(size=24, paste=0.6, background='images')",
    "bagssl(patches=3, size=12)",
    "bagssl(patches=2, size=16, short_side=40)",
    "selfie(size=24)",
    "emp_ssl(patches=5, size=12)",
)


@pytest.fixture(scope="module")
def beton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return beton_of_scenes(tmp_path_factory.mktemp("alike") / "scenes.beton", 18, 64)


@pytest.mark.parametrize(
    "pipeline", ["dali", pytest.param("ffcv", marks=pytest.mark.xdist_group("ffcv"))]
)
def test_recipes_of_patches_and_of_copy_paste(beton: Path, pipeline: str) -> None:
    pytest.importorskip("nvidia.dali" if pipeline == "dali" else "ffcv")
    settings: dict[str, Any] = {"recipe": RECIPE, "batch_size": 5, "drop_last": False}
    theirs = make_loader(beton, pipeline="threads", **settings)
    ours = make_loader(beton, pipeline=pipeline, **settings)
    pasted, groups = 0, set()
    for _ in range(2):
        for one, other in zip(list(ours), theirs, strict=True):
            assert torch.equal(one.ids, other.ids) and torch.equal(one.labels, other.labels)
            assert (one.rows == other.rows).all() and (one.shapes == other.shapes).all()
            for name, views in other.views.items():
                assert torch.equal(one.views[name], views), name
                assert torch.equal(one.pasted[name], other.pasted[name])
                pasted += int(other.pasted[name].sum())
                groups.add((name.split()[0], views.shape[1]))
    assert pasted > 15
    assert {("bagssl", 3), ("emp_ssl", 5), ("selfie", 9)} <= groups
    assert ours.stats().unmasked == theirs.stats().unmasked
