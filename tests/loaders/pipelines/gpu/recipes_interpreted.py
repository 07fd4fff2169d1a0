"""Published recipes in the pipelines of a GPU, run on a CPU by Triton's interpreter.

TRITON_INTERPRET=1 python -m pytest tests/loaders/pipelines/gpu/recipes_interpreted.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_gpu_pipelines_interpreted import LEVEL, MOST, gpu_loaders
from helpers_pipelines import make_loader
from helpers_recipes_alike import beton_of_scenes, together

RECIPE = together(
    "dilo(size=8, paste=0.6, background='images')",
    "bagssl(patches=2, size=6)",
    "bagssl(patches=1, size=8, short_side=16)",
    "selfie(size=16)",
    "emp_ssl(patches=2, size=6)",
)


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A beton, and the batches that a CPU makes of it."""
    path = beton_of_scenes(tmp_path_factory.mktemp("alike") / "scenes.beton", 4, 40)
    return path, list(make_loader(path, RECIPE, 2, pipeline="threads"))


SLOW = [pytest.param(pipeline, marks=pytest.mark.slow) for pipeline in ("dali", "ffcv")]


@pytest.mark.parametrize("pipeline", ["threads", *SLOW])
def test_recipes_of_patches_and_of_copy_paste(
    batches: Any, pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"threads": "triton", "dali": "nvidia.dali", "ffcv": "ffcv"}
    pytest.importorskip(needed[pipeline])
    path, theirs = batches
    make = gpu_loaders(pipeline, tmp_path / "gpu", monkeypatch)
    pasted = 0
    for one, other in zip(list(make(path, RECIPE, 2)), theirs, strict=True):
        assert torch.equal(one.ids, other.ids) and torch.equal(one.labels, other.labels)
        assert (one.rows == other.rows).all() and (one.shapes == other.shapes).all()
        for target in other.targets:
            views, expected = one.views[target.name], other.views[target.name]
            assert torch.equal(one.pasted[target.name], other.pasted[target.name])
            pasted += int(one.pasted[target.name].sum())
            error = (views - expected).abs() * torch.tensor(target.std)[:, None, None]
            assert error.max() <= 2 * MOST * LEVEL, target.name
    assert pasted > 0
