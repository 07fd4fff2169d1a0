"""Chunks: the slots of a batch, cut into the ranges that workers process one at a time.

Small images make chunks of many slots, so that queue overhead is negligible; large ones are
processed one by one, so that all workers are busy until a batch ends. Chunks do not change the
contents of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from patchmill.loaders.stats import Counters

WORK_NS = 1_000_000  # approximate work in a chunk
MOST_NS = 8 * WORK_NS  # in a chunk of the smallest size that its batch allows
LEAST_PER_WORKER = 4  # chunks, if a batch has that many samples


def cut(size: int, workers: Sequence[Counters], least: int = 1) -> list[range]:
    """Cut a batch of `size` samples into chunks of slots, by the workers' counters so far.

    Chunks have at least `least` slots, unless that is too much work.
    """
    chunk = chunk_size(size, len(workers), _sample_ns(workers), least)
    return [range(start, min(start + chunk, size)) for start in range(0, size, chunk)]


def chunk_size(size: int, workers: int, sample_ns: float, least: int = 1) -> int:
    """Slots per chunk of a batch of `size` samples that take a worker `sample_ns` each."""
    most = max(size // (LEAST_PER_WORKER * workers), 1)
    chunk = most if sample_ns * most <= WORK_NS else max(int(WORK_NS / sample_ns), 1)
    return least if chunk < least and sample_ns * least <= MOST_NS else chunk


def _sample_ns(workers: Sequence[Counters]) -> float:
    """Mean busy time of the workers per sample; infinite before the first."""
    samples = sum(counters.items["plan"] for counters in workers)
    busy = sum(sum(counters.nanoseconds.values()) for counters in workers)
    return busy / samples if samples else math.inf
