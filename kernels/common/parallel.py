"""Threads for CPU kernels that release the GIL: `parallel_ranges` and `parallel_for`.

Numba's own parallel loops abort the process if two threads enter them concurrently, as a loader's
threads, the main thread and autograd's thread do. These functions run plain functions on one thread
pool, with as many threads as torch uses.

`parallel_for` also replaces torch's intra-op threads. Torch wakes and joins all of them for every
small matrix product, and a product's rounding depends on their number.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def parallel_ranges(work: Callable[[int, int], object], count: int, min_length: int = 1) -> None:
    """Call `work(start, stop)` for ranges that cover [0, count), each at least `min_length` long.

    The split depends on the number of threads. For results that do not, an item's result must not
    depend on its range.
    """
    threads = max(1, min(torch.get_num_threads(), count // max(min_length, 1)))
    bounds = [count * i // threads for i in range(threads + 1)]
    first, *rest = itertools.pairwise(bounds)
    futures = [_pool(os.getpid()).submit(work, *limits) for limits in rest]
    try:
        work(*first)
    finally:
        for future in futures:  # all must end before the memory they write to is freed
            future.exception()
    for future in futures:
        future.result()


def parallel_for(work: Callable[[int], object], count: int) -> None:
    """Call `work(i)` for i in [0, count), started in order; torch is single-threaded inside.

    Gradients are not recorded. Results are bit-identical for any number of threads.
    """
    pending = iter(range(count))

    def run_pending() -> None:
        with torch.no_grad():
            for item in pending:
                work(item)

    threads = torch.get_num_threads()
    if threads == 1:
        return run_pending()
    futures = [_pool(os.getpid()).submit(run_pending) for _ in range(min(threads, count))]
    for future in futures:
        future.exception()
    for future in futures:
        future.result()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """One pool per process id: a forked child does not inherit its parent's threads."""
    return ThreadPoolExecutor(os.cpu_count() or 1, "kernels", limit_torch_to_one_thread)


def limit_torch_to_one_thread() -> None:
    """Limit torch to one thread in this thread only.

    `torch.set_num_threads` also sets the default for threads started later; a helper thread
    restores it.
    """
    default = torch.get_num_threads()
    torch.set_num_threads(1)
    restoring = threading.Thread(target=torch.set_num_threads, args=(default,))
    restoring.start()
    restoring.join()
