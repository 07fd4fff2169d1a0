"""Which pipeline a loader gets: what the user wrote, or what fits the device."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.loaders.pipelines import Pipeline
    from patchmill.loaders.pipelines.worker import Work

log = logging.getLogger("patchmill")


class Choice(Protocol):
    def open(self, work: Work) -> Pipeline: ...


@dataclass(frozen=True)
class Threads:
    """CPU threads decode; they render too, or a GPU does."""

    def open(self, work: Work) -> Pipeline:
        if work.device.type == "cpu":
            from patchmill.loaders.pipelines.cpu import pipeline as threads

            return threads.Threads(work)
        _need_triton()
        from patchmill.loaders.pipelines.gpu import pipeline

        return pipeline.ThreadsGpu(work)


@dataclass(frozen=True)
class Dali:
    """DALI decodes whole batches. `hardware` is what share of them a GPU's JPEG unit gets."""

    hardware: float | None = None

    def __post_init__(self) -> None:
        share = self.hardware
        if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
            raise MillError(f"hardware must be a share from 0 to 1, not {share!r}")

    def open(self, work: Work) -> Pipeline:
        if reason := missing("nvidia.dali"):
            raise MillError(f"pipeline 'dali' needs DALI, {reason}: pip install 'patchmill[dali]'")
        if work.device.type != "cpu":
            _need_triton()
        from patchmill.loaders.pipelines.dali.pipeline import Dali as Pipeline

        return Pipeline(work, self.hardware)


@dataclass(frozen=True)
class Ffcv:
    """FFCV reads a .beton and runs our operation in the pipeline that it compiles."""

    def open(self, work: Work) -> Pipeline:
        if reason := missing("patchmill.loaders.pipelines.ffcv.pipeline"):
            raise MillError(f"pipeline 'ffcv' needs FFCV, {reason}: pip install 'patchmill[ffcv]'")
        from patchmill.loaders.pipelines.ffcv.pipeline import Ffcv as Pipeline

        return Pipeline(work)


@dataclass(frozen=True)
class Auto:
    """DALI where the views belong on a GPU and it is installed, else threads."""

    def open(self, work: Work) -> Pipeline:
        if work.device.type == "cpu":
            chosen, why = "threads", "the views belong on the CPU"
        elif reason := missing("nvidia.dali"):
            chosen, why = (
                "threads",
                f"DALI would be faster, {reason}: pip install 'patchmill[dali]'",
            )
        else:
            chosen, why = "dali", f"the views belong on {work.device} and DALI is installed"
        _tell(f"pipeline {chosen}, because {why}")
        return CHOICES[chosen]().open(work)


@functools.cache
def _tell(news: str) -> None:
    """Once in a process, which may open many loaders."""
    log.info(news)


CHOICES: Mapping[str, type[Any]] = {
    "auto": Auto,
    "threads": Threads,
    "dali": Dali,
    "ffcv": Ffcv,
}


def choose(text: str) -> Choice:
    """What `"auto"`, `"threads"` or `"dali(hardware=0.5)"` stand for."""
    if not isinstance(text, str):
        raise MillError(f"pipeline must be one of {', '.join(CHOICES)}, not {text!r}")
    return calls.call(text, CHOICES, "pipeline")


def _need_triton() -> None:
    if reason := missing("triton"):
        raise MillError(f"views are made on a GPU by Triton, {reason}: pip install triton")


def missing(module: str) -> str | None:
    """Why a module cannot be used, as in "which is not installed"; None if it can."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        return "which is not installed"
    except Exception as error:  # a library of another CUDA, say
        return f"which cannot be loaded ({' '.join(str(error).split())[:200]})"
    return None
