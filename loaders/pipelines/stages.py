"""Stages of every pipeline, by the crew that runs them, as reported by `loader.stats()`.

"workers" are the worker threads, one image at a time; "dali" is DALI's decoder and "gpu" the GPU's
side stream, both a batch at a time. If the recipe pastes, workers have one more stage, "mask"; if
it lists operations, the crew that renders has one more, "extra".
"""

from __future__ import annotations

from collections.abc import Mapping

from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.stats import Counters, Stage, collect

StageTable = Mapping[str, tuple[str, ...]]

THREADS_CPU: StageTable = {"workers": ("read", "decode", "plan", "render")}
THREADS_GPU: StageTable = {
    "workers": ("read", "decode", "plan"),
    "gpu": ("upload", "render"),
}
DALI_CPU: StageTable = {
    "workers": ("read", "inspect", "plan", "render"),
    "dali": ("decode",),
}
DALI_GPU: StageTable = {
    "workers": ("read", "inspect", "plan"),
    "dali": ("decode",),
    "gpu": ("upload", "render"),
}
FFCV: StageTable = {"workers": ("decode", "plan", "render")}
FFCV_GPU: StageTable = {
    "workers": ("read", "decode", "plan"),  # "read" covers what Python decodes
    "gpu": ("upload", "render"),
}


class StageCounters:
    """Counters of a pipeline: one per worker, and one for each other crew."""

    def __init__(self, table: StageTable, workers: int, config: PipelineConfig) -> None:
        self._by_crew = {
            crew: [
                Counters((*stages, *_further_stages(crew, stages, config)))
                for _ in range(workers if crew == "workers" else 1)
            ]
            for crew, stages in table.items()
        }

    @property
    def workers(self) -> list[Counters]:
        return self._by_crew["workers"]

    def worker(self, lane: int) -> Counters:
        """The counters of a worker's lane, which may be the next one after the last."""
        if lane == len(self.workers):
            self.workers.append(Counters(tuple(self.workers[0].items)))
        return self.workers[lane]

    def of(self, crew: str) -> Counters:
        """The counters of a crew with a single thread."""
        (counters,) = self._by_crew[crew]
        return counters

    def collect(self, seconds: float, workers: tuple[int, float] | None = None) -> dict[str, Stage]:
        """All stages; if the number of workers varies, `workers` is that number and their time."""
        return collect(self._by_crew, seconds, {} if workers is None else {"workers": workers})

    def unmasked(self) -> int:
        return sum(counters.unmasked for counters in self.workers)

    def hits(self) -> int:
        return sum(counters.hits for counters in self.workers)


def _further_stages(crew: str, stages: tuple[str, ...], config: PipelineConfig) -> list[str]:
    """Stages that only some recipes have."""
    masks = ["mask"] if config.masks is not None and crew == "workers" else []
    return masks + (["extra"] if config.extra is not None and "render" in stages else [])
