"""`spread`: compiled work that lets go of the interpreter's lock, over as many threads as torch's.

Numba's own parallel loops end the process when two threads of a program enter them at once, and a
loader's threads, the main thread and autograd's do. Here each call is only ranges for a pool.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def spread(work: Callable[[int, int], object], count: int, least: int = 1) -> None:
    """`work(start, stop)` for ranges that cover [0, count), each of `least` items or more.

    Which ranges these are depends on the number of threads: work that is to be the same on every
    machine must not let an item's result depend on the range that it is in.
    """
    threads = max(1, min(torch.get_num_threads(), count // max(least, 1)))
    bounds = [count * i // threads for i in range(threads + 1)]
    first, *rest = itertools.pairwise(bounds)
    others = [_pool(os.getpid()).submit(work, *span) for span in rest]
    try:
        work(*first)
    finally:
        for other in others:  # all of them end before what they write to may go
            other.exception()
    for other in others:
        other.result()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """One for each process: a fork's threads are not its own. They stay, unlike a loader's."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="kernels")
