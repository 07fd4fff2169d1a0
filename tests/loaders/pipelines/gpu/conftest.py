"""Pipelines that make views on a GPU."""

from __future__ import annotations

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
