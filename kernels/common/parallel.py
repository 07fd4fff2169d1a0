"""`spread` and `share`: work that lets go of the interpreter's lock, in as many threads as torch's.

Numba's own parallel loops end the process when two threads of a program enter them at once, and a
loader's threads, the main thread and autograd's do. Here each call is only ranges for a pool.

torch wakes all its threads for every small product, and waits for them; and a product rounds as
their number says. So what is many small products is shared out as a whole.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def parallel_ranges(work: Callable[[int, int], object], count: int, least: int = 1) -> None:
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


def parallel_for(work: Callable[[int], object], count: int) -> None:
    """`work(i)` for all of [0, count), begun in order, each in a thread whose torch has no other.

    Gradients are not recorded. The same to the bit whatever the number of threads.
    """
    waiting = iter(range(count))

    def take() -> None:
        with torch.no_grad():
            for item in waiting:
                work(item)

    threads = torch.get_num_threads()
    if threads == 1:
        return take()
    every = [_pool(os.getpid()).submit(take) for _ in range(min(threads, count))]
    for one in every:
        one.exception()
    for one in every:
        one.result()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """One for each process: a fork's threads are not its own. They stay, unlike a loader's."""
    return ThreadPoolExecutor(os.cpu_count() or 1, "kernels", _keep_to_one_thread)


def _keep_to_one_thread() -> None:
    """This thread's torch; threads that begin later get as many as before."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    restoring = threading.Thread(target=torch.set_num_threads, args=(usual,))
    restoring.start()
    restoring.join()
