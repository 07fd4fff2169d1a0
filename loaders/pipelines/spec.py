"""Choose a loader's pipeline by the user's `pipeline="..."` or by the device."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from patchmill.loaders.common import c_compiler, calls
from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.loaders.pipelines import Pipeline
    from patchmill.loaders.pipelines.config import PipelineConfig

log = logging.getLogger("patchmill")


class PipelineChoice(Protocol):
    """A parsed `pipeline="..."`: its settings, and how to open it."""

    def open(self, config: PipelineConfig) -> Pipeline: ...


@dataclass(frozen=True)
class ThreadsChoice:
    """CPU threads decode; they render too, or the GPU does."""

    def open(self, config: PipelineConfig) -> Pipeline:
        if config.device.type == "cpu":
            from patchmill.loaders.pipelines.cpu.pipeline import CpuThreadsPipeline

            return CpuThreadsPipeline(config)
        _need_triton()
        from patchmill.loaders.pipelines.gpu.pipeline import GpuThreadsPipeline

        return GpuThreadsPipeline(config)


@dataclass(frozen=True)
class DaliChoice:
    """DALI decodes whole batches; `hardware` is the share of them for a GPU's JPEG engine."""

    hardware: float | None = None

    def __post_init__(self) -> None:
        share = self.hardware
        if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
            raise MillError(f"hardware must be a share from 0 to 1, not {share!r}")

    def open(self, config: PipelineConfig) -> Pipeline:
        if reason := unavailable("nvidia.dali"):
            raise MillError(f"pipeline 'dali' needs DALI, {reason}: pip install 'patchmill[dali]'")
        if config.device.type != "cpu":
            _need_triton()
        from patchmill.loaders.pipelines.dali.pipeline import DaliPipeline

        return DaliPipeline(config, self.hardware)


@dataclass(frozen=True)
class FfcvChoice:
    """FFCV reads a .beton and compiles a pipeline with our operation in it."""

    def open(self, config: PipelineConfig) -> Pipeline:
        if reason := unavailable("patchmill.loaders.pipelines.ffcv.pipeline"):
            raise MillError(f"pipeline 'ffcv' needs FFCV, {reason}: pip install 'patchmill[ffcv]'")
        if config.device.type != "cpu":
            _need_triton()
            from patchmill.loaders.pipelines.ffcv.gpu_pipeline import FfcvGpuPipeline

            return FfcvGpuPipeline(config)
        from patchmill.loaders.pipelines.ffcv.pipeline import FfcvPipeline

        return FfcvPipeline(config)


@dataclass(frozen=True)
class AutoChoice:
    """DALI if the views belong on a GPU and DALI is installed, else threads."""

    def open(self, config: PipelineConfig) -> Pipeline:
        if config.device.type == "cpu":
            chosen, why = "threads", "the views belong on the CPU"
        elif reason := unavailable("nvidia.dali"):
            chosen, why = (
                "threads",
                f"DALI would be faster, {reason}: pip install 'patchmill[dali]'",
            )
        else:
            chosen, why = "dali", f"the views belong on {config.device} and DALI is installed"
        log_once(f"pipeline {chosen}, because {why}")
        return CHOICES[chosen]().open(config)


@functools.cache
def log_once(message: str) -> None:
    """Log a message once per process, which may open many loaders."""
    log.info(message)


CHOICES: Mapping[str, type[Any]] = {
    "auto": AutoChoice,
    "threads": ThreadsChoice,
    "dali": DaliChoice,
    "ffcv": FfcvChoice,
}


def choose(text: str) -> PipelineChoice:
    """Parse `"auto"`, `"threads"`, `"dali(hardware=0.5)"` or `"ffcv"`."""
    if not isinstance(text, str):
        raise MillError(f"pipeline must be one of {', '.join(CHOICES)}, not {text!r}")
    return calls.call(text, CHOICES, "pipeline")


def _need_triton() -> None:
    if reason := unavailable("triton"):
        raise MillError(f"views are made on a GPU by Triton, {reason}: pip install triton")
    if not c_compiler.compiler():
        raise MillError(
            "views are made on a GPU by Triton, which starts its kernels through a C compiler, and "
            f"{c_compiler.MISSING}: {c_compiler.compiler_remedy()}"
        )


def unavailable(module: str) -> str | None:
    """The reason why a module cannot be imported ("which is not installed"); None if it can."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        return "which is not installed"
    except Exception as error:  # a library for another version of CUDA, say
        return f"which cannot be loaded ({' '.join(str(error).split())[:200]})"
    return None
