"""Real limits on the memory of this process: `limited`."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from collections.abc import Iterator
from pathlib import Path

# What ends a process before Python hears of it: a thread's own data, torch's threads, C++.
NATIVE = (
    *("memory for thread-local data", "register TLS destructor: out of memory"),  # glibc
    *("Thread creation failed", "bad_alloc"),
)
KINDS = {"AS": "VmSize", "DATA": "VmData"}  # of setrlimit, and what /proc calls them


@contextlib.contextmanager
def limited(kind: str, size: int) -> Iterator[None]:
    """Context in which this process gets as many bytes more than it has now."""
    give_back()
    number = getattr(resource, f"RLIMIT_{kind}")
    before = resource.getrlimit(number)
    resource.setrlimit(number, (used()[KINDS[kind]] + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(number, before)


def give_back() -> None:
    """Give memory that this process has freed back to the system, as if it had just begun."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


def used() -> dict[str, int]:
    """Bytes of this process's memory, by their names in /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    parts = [line.split() for line in lines if line.startswith("Vm")]
    return {name.rstrip(":"): int(size) << 10 for name, size, _ in parts}


def peak() -> int:
    """The most bytes of address space that this process has had."""
    return used()["VmPeak"]


def is_native(told: str) -> bool:
    """Check if a library in C ended the process for want of memory, and said so."""
    return any(words in told for words in NATIVE)
