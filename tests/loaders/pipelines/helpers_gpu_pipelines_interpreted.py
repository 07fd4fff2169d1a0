"""Pipelines of a GPU run on a CPU by Triton's interpreter; importers are skipped without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import helpers_interpreter
import numpy as np
import pytest
import torch
from helpers_pipelines import make_loader

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from patchmill.kernels.views import reference
from patchmill.loaders.recipe import Blur, Colour, Crop, Recipe, Views

LEVEL = 1 / 255
MOST = 1.2  # levels, as for the renderer by itself
JITTER = Colour(0.4, 0.4, 0.2, 0.1)
TINY = Recipe(
    (
        Views("global", 1, 16, Crop((0.4, 1.0)), colour=JITTER, blur=Blur((0.5,))),
        Views("local", 1, 6, Crop((0.05, 0.4)), turns=True),
    ),
    name="tiny",
)
DOT = Recipe((Views("dot", 1, 2),), name="dot")


def gpu_loaders(pipeline: str, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`make_loader`, with the pipeline that a GPU gets, and a cache of `device_cache` bytes."""

    def make(*arguments: Any, device_cache: int | None = None, **settings: Any) -> Any:
        settings = {"ledger": ledger, **settings}
        loader = make_loader(*arguments, pipeline="threads", **settings)
        config = replace(loader.pipeline._config, device_cache=device_cache)
        if pipeline == "threads":
            from patchmill.loaders.pipelines.gpu.pipeline import GpuThreadsPipeline

            loader.pipeline = GpuThreadsPipeline(config)
        elif pipeline == "ffcv":
            from patchmill.loaders.pipelines.ffcv.gpu_pipeline import FfcvGpuPipeline

            loader.pipeline = FfcvGpuPipeline(config)
        else:
            from patchmill.loaders.pipelines.dali.pipeline import DaliPipeline, GpuBackend

            monkeypatch.setattr("patchmill.loaders.pipelines.dali.pipeline.CpuBackend", GpuBackend)
            loader.pipeline = DaliPipeline(config)
        return loader

    return make


def views_of(loader: Any) -> Any:
    return getattr(loader.pipeline, "_views", None) or loader.pipeline._backend._views


def assert_rendered(batch: Any, images: list[np.ndarray], targets: Any) -> None:
    expected = reference.render(images, batch.rows, targets)
    for target in targets:
        error = batch.views[target.name].float() - expected[target.name]
        error *= torch.tensor(target.std)[:, None, None]
        assert error.abs().max() <= MOST * LEVEL, target
