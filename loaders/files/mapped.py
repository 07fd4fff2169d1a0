"""Guard memory maps of files that others may truncate: an error instead of a killed process.

Reading a mapped page beyond the end of its file raises SIGBUS. In maps that are guarded here, a
handler replaces such pages by zeros, and records it; `check`, which pipelines call before they
deliver a batch, then raises an error. The handler passes on every other bus error.

Files are mapped only if that makes reading many times faster: decoded pixels, and FFCV's file. LMDB
maps its databases itself.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import signal
import sys
import weakref
from collections.abc import Callable, Container
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
    """Maps of a file, by address; `broken` once a page beyond the end of the file was read."""

    def __init__(
        self, owner: Any, path: str, spans: list[tuple[int, int]], is_short: Callable[[], bool]
    ) -> None:
        self.path, self.spans, self.is_short, self.broken = path, spans, is_short, False
        self.owner = weakref.ref(owner)

    def is_truncated(self) -> bool:
        return self.broken or self.is_short()


_guarded: dict[int, _Guarded] = {}  # by the id of their owner
_previous = _Action()


def guard(memory: mmap.mmap, path: str) -> None:
    """Guard a map of the file at `path` for as long as it lives."""
    start = np.frombuffer(memory, np.uint8, 1).ctypes.data
    end = start + -(-len(memory) // _PAGE) * _PAGE
    reference = weakref.ref(memory)

    def is_short() -> bool:
        memory = reference()
        return memory is not None and not memory.closed and memory.size() < len(memory)

    _guard(memory, path, [(start, end)], is_short)


def guard_library(owner: Any, path: str, file: int, size: int) -> None:
    """Guard the maps that a library has made of the file at `path`, for as long as `owner` lives.

    `size` is the number of bytes that the library may read. `file` is a descriptor of the same
    file, which stays open as long.
    """
    _guard(owner, path, _spans(file, path), lambda: os.fstat(file).st_size < size)


def _guard(
    owner: Any, path: str, spans: list[tuple[int, int]], is_short: Callable[[], bool]
) -> None:
    known = _guarded.get(id(owner))
    if known is not None and known.owner() is owner:
        return
    _install()
    _guarded[id(owner)] = guarded = _Guarded(owner, path, spans, is_short)
    weakref.finalize(owner, _forget, id(owner), guarded)


def _spans(file: int, path: str) -> list[tuple[int, int]]:
    """Addresses at which this process has mapped a file; none if the system reports none."""
    status, spans = os.fstat(file), []
    try:
        with open("/proc/self/maps", "rb") as maps:
            lines = [line.split(maxsplit=5) for line in maps]
    except OSError:
        return []
    for addresses, _, _, _, inode, *name in lines:
        if int(inode) == status.st_ino and name and name[0].strip() == os.fsencode(path):
            start, end = addresses.split(b"-")
            spans.append((int(start, 16), int(end, 16)))
    return spans


def check(paths: Container[str] | None = None) -> None:
    """Raise a MillError if one of these files (None: any file) was truncated while mapped.

    Zeros may have been read instead of its content.
    """
    for guarded in list(_guarded.values()):
        if (paths is None or guarded.path in paths) and guarded.is_truncated():
            raise MillError(
                f"{guarded.path} was truncated while it was in use: copy or make it again, then "
                "restart"
            )


def _forget(owner: int, guarded: _Guarded) -> None:
    if _guarded.get(owner) is guarded:
        del _guarded[owner]


def _install() -> None:
    """Install the handler, unless it is installed; forked processes inherit it.

    Others, such as faulthandler, may have replaced it since the last map.
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
    """Handle SIGBUS, in the thread that read the page, before the read is retried."""
    handled = False
    try:
        address = ctypes.c_size_t.from_address(information + _SIGINFO_ADDRESS).value
        handled = any(_put_zeros(guarded, address) for guarded in list(_guarded.values()))
    finally:
        if not handled:  # the retried read raises the signal again, for the previous handler
            _libc().sigaction(signal.SIGBUS, ctypes.byref(_previous), None)


def _put_zeros(guarded: _Guarded, address: int) -> bool:
    """Map zeros from an address's page to the end of its map; False if it is in none of them."""
    end = next((end for start, end in guarded.spans if start <= address < end), None)
    if end is None:
        return False
    guarded.broken = True
    page = address // _PAGE * _PAGE
    access = mmap.PROT_READ | mmap.PROT_WRITE
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    return _libc().mmap(page, end - page, access, kind, -1, 0) != _FAILED
