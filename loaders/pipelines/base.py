"""The part that all pipelines share: workers, stage counters and pooled memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from patchmill.loaders.decoded.cache_stats import CacheStats
from patchmill.loaders.pipelines import FilledBatch
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.crew import Crew, Feeder
from patchmill.loaders.pipelines.stages import StageCounters, StageTable
from patchmill.loaders.pipelines.worker import Step, Worker
from patchmill.loaders.stats import Stage

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.gpu.device_cache import DeviceCache


class PooledMemory(Protocol):
    def clear(self) -> None:
        """Free the memory that is pooled for batches."""
        ...


class StagedPipeline:
    """Base of the pipelines: `table` names the stages, subclasses provide the steps."""

    _memory: PooledMemory

    def __init__(self, config: PipelineConfig, table: StageTable, lanes: int | None = None) -> None:
        """`lanes` is the number of workers, if it is not `config.workers`."""
        self._config = config
        self._counters = StageCounters(table, lanes or config.workers, config)
        self._workers = [Worker(config, counters) for counters in self._counters.workers]

    def _start(
        self,
        step: Step,
        jobs: Iterator[Any],
        hand_over: Callable[[Any], FilledBatch],
        feeder: Feeder | None = None,
    ) -> Crew:
        """Start a crew: `step` on every sample of every job, then `hand_over` of the batch."""
        self._workers = [worker.usable() for worker in self._workers]
        return Crew(self._workers, step, jobs, self._config.prefetch, hand_over, feeder)

    def stages(self, seconds: float) -> dict[str, Stage]:
        return self._counters.collect(seconds)

    def unmasked(self) -> int:
        return self._counters.unmasked()

    def cache(self) -> CacheStats | None:
        held = self._device_cache() or self._config.decoded
        return None if held is None else held.stats(self._counters.hits())

    def _device_cache(self) -> DeviceCache | None:
        """The images that are kept on a GPU, if any."""
        return None

    def clear(self) -> None:
        self._memory.clear()
