"""Memory maps of files that others may truncate: an error, where it would end the process.

Reading a mapped page beyond the end of its file raises SIGBUS. In maps that are guarded here, a
handler puts zeros in place of such pages, and notes it; `check`, which pipelines call before they
give a batch away, then refuses what was made of them. The handler passes on every other bus error.

Only what is read many times faster through a map is mapped: decoded pixels, and FFCV's file.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import signal
import sys
import weakref
from collections.abc import Container
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError

_SIGINFO_ADDRESS = 16  # bytes from the start of Linux's siginfo_t to the address of the fault
_SA_SIGINFO = 4
_MAP_FIXED, _FAILED = 0x10, ctypes.c_void_p(-1).value
_PAGE = mmap.PAGESIZE
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """`struct sigaction` of Linux's C libraries."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Guarded:
    """A map, by its addresses; `broken` once a page of it was beyond the end of the file."""

    def __init__(self, memory: mmap.mmap, path: str, start: int) -> None:
        self.path, self.start, self.broken = path, start, False
        self.end = start + -(-len(memory) // _PAGE) * _PAGE
        self.memory = weakref.ref(memory)

    def is_truncated(self) -> bool:
        memory = self.memory()
        return self.broken or (
            memory is not None and not memory.closed and memory.size() < len(memory)
        )


_guarded: dict[int, _Guarded] = {}  # by start
_previous = _Action()


def guard(memory: mmap.mmap, path: str) -> None:
    """Guard a map of the file at `path` for as long as it lives."""
    start = np.frombuffer(memory, np.uint8, 1).ctypes.data
    known = _guarded.get(start)
    if known is not None and known.memory() is memory:
        return
    _install()
    _guarded[start] = guarded = _Guarded(memory, path, start)
    weakref.finalize(memory, _forget, guarded)


def check(paths: Container[str] | None = None) -> None:
    """MillError if one of these files was truncated while it is mapped; None: any file at all.

    Zeros may have been read for it.
    """
    for guarded in list(_guarded.values()):
        if (paths is None or guarded.path in paths) and guarded.is_truncated():
            raise MillError(
                f"{guarded.path} was truncated while it was in use: copy or make it again, then "
                "start again"
            )


def _forget(guarded: _Guarded) -> None:
    if _guarded.get(guarded.start) is guarded:
        del _guarded[guarded.start]


def _install() -> None:
    """Install the handler, unless it is; it is inherited by forked processes.

    Others may have taken its place since the last map, as faulthandler does.
    """
    if sys.platform != "linux":
        return
    action, current = _Action(flags=_SA_SIGINFO), _Action()
    action.handler = ctypes.cast(_on_bus_error, ctypes.c_void_p).value
    _libc().sigaction(signal.SIGBUS, None, ctypes.byref(current))
    if current.handler == action.handler:
        return
    _libc().sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(_previous))


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    return libc


@_HANDLER
def _on_bus_error(number: int, information: int, context: int) -> None:
    """Runs in the thread that read the page, in place of the read, which is then tried again."""
    handled = False
    try:
        address = ctypes.c_size_t.from_address(information + _SIGINFO_ADDRESS).value
        handled = any(_put_zeros(guarded, address) for guarded in list(_guarded.values()))
    finally:
        if not handled:  # the read raises the signal again, for whoever handled it before
            _libc().sigaction(signal.SIGBUS, ctypes.byref(_previous), None)


def _put_zeros(guarded: _Guarded, address: int) -> bool:
    """Put zeros from an address's page to the end of the map; False if it is not in the map."""
    if not guarded.start <= address < guarded.end:
        return False
    guarded.broken = True
    page = address // _PAGE * _PAGE
    access = mmap.PROT_READ | mmap.PROT_WRITE
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    return _libc().mmap(page, guarded.end - page, access, kind, -1, 0) != _FAILED
