"""Stages of every pipeline, by the crew that runs them: what `loader.stats()` reports.

"workers" are the worker threads, one image at a time; "dali" is DALI's decoder and "gpu" the GPU's
side stream, both a batch at a time. Where the recipe pastes, workers have one more stage, "mask".
"""

from __future__ import annotations

from collections.abc import Mapping

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


class StageCounters:
    """Counters of a pipeline: one per worker, one for each other crew."""

    def __init__(self, table: StageTable, workers: int, masks: bool) -> None:
        self._by_crew = {
            crew: [
                Counters((*stages, "mask") if masks and crew == "workers" else stages)
                for _ in range(workers if crew == "workers" else 1)
            ]
            for crew, stages in table.items()
        }

    @property
    def workers(self) -> list[Counters]:
        return self._by_crew["workers"]

    def of(self, crew: str) -> Counters:
        """The counters of a crew of one."""
        (counters,) = self._by_crew[crew]
        return counters

    def collect(self, seconds: float) -> dict[str, Stage]:
        return collect(self._by_crew, seconds)

    def unmasked(self) -> int:
        return sum(counters.unmasked for counters in self.workers)
