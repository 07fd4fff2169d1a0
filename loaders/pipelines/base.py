"""Base class of all pipelines: workers, stage counters and pooled memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from patchmill.loaders.decoded.cache_stats import CacheStats
from patchmill.loaders.files import mapped
from patchmill.loaders.pipelines import FilledBatch, Run
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.crew import Crew, Feeder
from patchmill.loaders.pipelines.shift import Presence
from patchmill.loaders.pipelines.stages import StageCounters, StageTable
from patchmill.loaders.pipelines.tuning.iteration import Tuned, Tuning
from patchmill.loaders.pipelines.worker import Step, Worker
from patchmill.loaders.stats import Stage

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.gpu.device_cache import DeviceCache


class PooledMemory(Protocol):
    def clear(self) -> None:
        """Free the memory pooled for batches."""
        ...


class StagedPipeline:
    """Base of the pipelines: `table` names the stages, subclasses provide the steps."""

    _memory: PooledMemory

    def __init__(self, config: PipelineConfig, table: StageTable, lanes: int | None = None) -> None:
        """`lanes` is the number of workers if it differs from `config.workers`."""
        self._config = config
        self._counters = StageCounters(table, lanes or config.workers, config)
        self._workers = [Worker(config, counters) for counters in self._counters.workers]
        self._presence = Presence()
        self._tuning: Tuning | None = None
        if config.auto:
            self._tuning = Tuning(config, self._counters, one_thread=lanes is not None)

    def _start(
        self,
        step: Step,
        jobs: Iterator[Any],
        hand_over: Callable[[Any], FilledBatch],
        feeder: Feeder | None = None,
        in_decoder: int = 0,
    ) -> Run:
        """Start a crew: `step` on every sample of every job, then `hand_over` of the batch.

        `in_decoder` is the number of jobs that the feeder's decoder holds at the same time.
        """

        def checked(job: Any) -> FilledBatch:
            mapped.check(self._config.mapped_files)
            return hand_over(job)

        self._workers = [worker.usable() for worker in self._workers]
        crew = Crew(
            self._workers,
            step,
            jobs,
            self.prefetch,
            checked,
            feeder,
            self._presence,
            in_decoder,
        )
        return crew if self._tuning is None else Tuned(crew, self._tuning, self._set_workers)

    def _set_workers(self, crew: Crew, workers: int, ahead: int, timed: bool) -> None:
        """Continue with this number of workers and of batches ahead."""
        del self._workers[workers:]
        for lane in range(len(self._workers), workers):
            self._workers.append(Worker(self._config, self._counters.worker(lane)))
        crew.ahead = ahead
        crew.set_workers(self._workers, timed)

    @property
    def workers(self) -> int:
        varies = self._tuning is not None and self._tuning.varies_workers
        return len(self._workers) if varies else self._config.workers

    @property
    def prefetch(self) -> int:
        return self._config.prefetch if self._tuning is None else self._tuning.setting.prefetch

    def stages(self, seconds: float) -> dict[str, Stage]:
        if self._tuning is None or not self._tuning.varies_workers:
            return self._counters.collect(seconds)
        return self._counters.collect(seconds, (len(self._workers), self._presence.seconds))

    def idle(self) -> float:
        busy = sum(lane.busy_ns for lane in self._counters.workers) / 1e9
        present = self._presence.seconds
        return max(1 - busy / present, 0.0) if busy else 0.0

    def unmasked(self) -> int:
        return self._counters.unmasked()

    def cache(self) -> CacheStats | None:
        held = self._device_cache() or self._config.decoded
        return None if held is None else held.stats(self._counters.hits())

    def _device_cache(self) -> DeviceCache | None:
        """The cache of images on a GPU, if there is one."""
        return None

    def clear(self) -> None:
        self._memory.clear()
