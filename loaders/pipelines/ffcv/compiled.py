"""FFCV's loader of a .beton, with its compiled code called without its thread, and operations.

FFCV's loader opens the file and compiles. FFCV's own thread is not used, because it hangs after an
error or an early end of the iteration, and its batches live in memory that it soon overwrites.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import numba
import numpy as np

from patchmill.kernels.common.compiling import announce_compilation
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.ffcv import workarounds  # before anything of FFCV
from patchmill.loaders.sources.beton.source import Beton

with workarounds.preserve_thread_counts():
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.state import State

Memory = list[tuple[tuple[int, ...], np.dtype]]  # shape and dtype of a sample in each array


def checked_source(config: PipelineConfig) -> Beton:
    """The source; MillError if FFCV cannot read it, or with a decoded cache."""
    source = config.source
    if not isinstance(source, Beton):
        raise MillError(
            f"pipeline 'ffcv' reads .beton files, which {source.name} is not: write one, or use "
            "pipeline='threads'"
        )
    if config.decoded is not None:
        raise MillError("pipeline 'ffcv' has no decoded cache: use pipeline='threads'")
    return source


def lanes_of(config: PipelineConfig) -> int:
    """Threads of the compiled code."""
    return min(config.workers, numba.config.NUMBA_NUM_THREADS)


class EpochOperation(SimpleRGBImageDecoder):
    """Base class of operations on encoded images; one of their arrays carries the epoch number."""

    @abstractmethod
    def memory(self, epoch: int) -> Memory: ...

    def next_epoch(self) -> int:
        """The epoch for which FFCV requests memory."""
        return 0

    def declare_state_and_memory(
        self, previous_state: State
    ) -> tuple[State, tuple[AllocationQuery, ...]]:
        needs = self.memory(self.next_epoch())
        state = replace(previous_state, jit_mode=True, shape=needs[0][0], dtype=needs[0][1])
        return state, tuple(AllocationQuery(shape, dtype) for shape, dtype in needs)


class CompiledFile:
    """Runs an FFCV operation on the images of a .beton, a batch at a time, into given memory."""

    def __init__(self, source: Beton, operation: Any, max_batch: int, lanes: int) -> None:
        self._lanes = lanes
        pipelines: dict[str, Any] = dict.fromkeys(source.fields) | {source.field: [operation]}
        with announce_compilation(), workarounds.preserve_thread_counts():
            self._loader = Loader(
                source.path,
                max_batch,
                num_workers=lanes,
                os_cache=True,
                order=OrderOption.SEQUENTIAL,
                pipelines=pipelines,
            )
        self.records = self._loader.reader.metadata[f"f{source.fields.index(source.field)}"]
        storage = self._loader.memory_manager.schedule_epoch([])
        storage.__enter__()  # maps the file
        self._storage = storage.state

    def __call__(self, ids: np.ndarray, memory: tuple[np.ndarray, ...]) -> Any:
        """Call the compiled code as FFCV's thread would; only one thread at a time."""
        numba.set_num_threads(self._lanes)
        loader = self._loader
        (node,) = (node.id for node in loader.graph.root_nodes)
        (compiled, _), *_ = loader.code[0]
        (arrays,) = compiled(
            batch_indices=ids,
            metadata=loader.reader.metadata,
            storage_state=self._storage,
            **{f"memory_{node}": memory, f"shared_memory_{node}": None},
        )
        return arrays
