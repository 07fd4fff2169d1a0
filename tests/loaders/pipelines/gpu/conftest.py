"""Pipelines that make views on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchmill.loaders.pipelines.spec import unavailable

PIPELINES = ["threads", "dali(hardware=0)", "dali(hardware=1)"]


@pytest.fixture(params=PIPELINES)
def pipeline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Pipeline for `on_gpu`; the hardware share is given, so that none is measured."""
    if request.param != "threads" and unavailable("nvidia.dali"):
        pytest.skip("needs DALI")
    monkeypatch.setenv("TEST_PIPELINE", request.param)
    return request.param


@pytest.fixture(params=["threads", "dali"])
def on_gpu(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Any]:
    """`make_loader` with the pipelines of a GPU, under Triton's interpreter."""
    from helpers_gpu_pipelines_interpreted import gpu_loaders

    if request.param == "dali" and unavailable("nvidia.dali"):
        pytest.skip("needs DALI")
    return gpu_loaders(request.param, tmp_path / "gpu", monkeypatch)
