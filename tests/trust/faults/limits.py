"""`limited`: real limits on the memory of this process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from collections.abc import Iterator
from pathlib import Path

# Messages of native code that aborts before Python can raise: thread-local data, threads, C++.
NATIVE = (
    *("memory for thread-local data", "register TLS destructor: out of memory"),  # glibc
    *("Thread creation failed", "bad_alloc"),
)
KINDS = {"AS": "VmSize", "DATA": "VmData"}  # of setrlimit, and their names in /proc


@contextlib.contextmanager
def limited(kind: str, size: int) -> Iterator[None]:
    """Context in which this process may use `size` bytes more than it uses now."""
    give_back()
    number = getattr(resource, f"RLIMIT_{kind}")
    before = resource.getrlimit(number)
    resource.setrlimit(number, (used()[KINDS[kind]] + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(number, before)


def give_back() -> None:
    """Return freed memory to the system, as if this process had just started."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


def fill_freed(size: int = 1 << 20) -> list[bytearray]:
    """Blocks of `size` bytes that fill the address space which malloc keeps of freed memory."""
    blocks: list[bytearray] = []
    with contextlib.suppress(MemoryError):
        while True:
            blocks.append(bytearray(size))
    return blocks


def used() -> dict[str, int]:
    """Bytes of this process's memory, by their names in /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    parts = [line.split() for line in lines if line.startswith("Vm")]
    return {name.rstrip(":"): int(size) << 10 for name, size, _ in parts}


def peak() -> int:
    """Peak address space of this process in bytes."""
    return used()["VmPeak"]


def is_native(output: str) -> bool:
    """Check if a C library ended the process with an out-of-memory message."""
    return any(message in output for message in NATIVE)
