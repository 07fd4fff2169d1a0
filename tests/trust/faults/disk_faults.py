"""Disk faults in a forked child: a kill in the middle of a call, or no space from a call on."""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILL, FULL = "kill", "full"
_WRITES = ("write", "writev", "pwrite")
_GROWING = (*_WRITES, "mkdir", "open", "fsync", "posix_fallocate")  # calls that need space
_CALLS = (*_GROWING, "ftruncate", "truncate", "replace", "rename", "unlink", "utime")
_PATIENCE = 60  # timeout of a child in seconds


@dataclass(frozen=True)
class Ended:
    """Outcome of a child's work."""

    killed: bool
    output: str  # its last output: an error message, or the result
    failed: bool  # with an error
    calls: int  # to the disk


def run(
    work: Callable[[], str], fault: str = "", at: int = 1 << 60, cache: Path | None = None
) -> Ended:
    """Do the work in a child, and wait for it; see `Child`."""
    return Child(work, fault, at, cache).end()


class Child:
    """Work in a child of this process, which must have no threads when it forks.

    `cache` is the child's cache folder.

    From call number `at` on, the disk has the fault. A write is half completed first.
    """

    def __init__(
        self,
        work: Callable[[], str],
        fault: str = "",
        at: int = 1 << 60,
        cache: Path | None = None,
    ) -> None:
        self._at, self._stderr = at, os.memfd_create("stderr")
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reading)
            if cache is not None:
                os.environ["PATCHMILL_CACHE"] = str(cache)
            _work_in_child(work, fault, at, writing, self._stderr)
        os.close(writing)

    def end(self) -> Ended:
        """Wait for the child; one that hangs is aborted."""
        alarm = threading.Timer(_PATIENCE, os.kill, (self.pid, signal.SIGABRT))
        alarm.start()
        with open(self._reading, encoding="utf-8", errors="replace") as file:
            answer = file.read()
        status = os.waitpid(self.pid, 0)[1]
        alarm.cancel()
        alarm.join()
        errors = os.pread(self._stderr, 1 << 20, 0).decode(errors="replace")[-1500:]
        os.close(self._stderr)
        if os.WIFSIGNALED(status):
            killed = os.WTERMSIG(status) == signal.SIGKILL
            return Ended(killed, f"signal {os.WTERMSIG(status)}\n{errors}", not killed, self._at)
        if not answer:
            return Ended(False, f"status {os.WEXITSTATUS(status)}\n{errors}", True, self._at)
        calls, _, output = answer.partition("\n")
        return Ended(False, output, os.WEXITSTATUS(status) != 0, int(calls))


def _work_in_child(work: Callable[[], str], fault: str, at: int, pipe: int, errors: int) -> None:
    from patchmill.loaders.common.errors import MillError

    write, status = os.write, 1
    os.dup2(errors, 2)
    counter = _Counter(fault, at)
    try:
        _put_in(counter)
        output = work()
        status = 0
    except MillError as error:
        output = str(error)
    except BaseException:
        output = traceback.format_exc()
    sys.stdout.flush()
    counter.fault = ""
    write(pipe, f"{counter.calls}\n{output}".encode(errors="replace")[:60_000])
    os._exit(status)


class _Counter:
    """Count calls to the disk, and make those from `at` on fail."""

    def __init__(self, fault: str, at: int) -> None:
        self.fault, self._at = fault, at
        self._numbers = itertools.count()  # next() of it is atomic
        self.calls = 0

    def wrong(self, name: str) -> bool:
        """Count a call; True if it must fail half-way."""
        self.calls = max(number := next(self._numbers), self.calls)
        return bool(self.fault) and number >= self._at and (self.fault == KILL or name in _GROWING)

    def fail(self) -> None:
        if self.fault == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _put_in(counter: _Counter) -> None:
    """Count calls of Python's `os`, and of files opened by `open`."""
    for name in _CALLS:
        setattr(os, name, _counted(name, getattr(os, name), counter))
    opened = builtins.open

    def counted_open(file: Any, mode: str = "r", *rest: Any, **settings: Any) -> Any:
        if not set(mode) & set("wax+"):
            return opened(file, mode, *rest, **settings)
        raw = _CountedFile(file, mode.replace("b", "").replace("t", ""), counter)
        if rest[:1] == (0,) or settings.get("buffering") == 0:
            return raw
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return binary
        return io.TextIOWrapper(binary, settings.get("encoding"), settings.get("errors"))

    builtins.open = io.open = counted_open  # type: ignore[assignment]


def _counted(name: str, call: Callable[..., Any], counter: _Counter) -> Callable[..., Any]:
    def counted(*given: Any, **settings: Any) -> Any:
        if name == "open" and not _creates(given, settings):
            return call(*given, **settings)
        if counter.wrong(name):
            if name in _WRITES and counter.fault == KILL:
                half = given[1] if name == "writev" else [given[1]]
                data = b"".join(map(bytes, half))
                call(given[0], *_halved(name, data), *given[2:])
            counter.fail()
        return None if name == "fsync" else call(*given, **settings)  # power does not fail here

    return counted


def _halved(name: str, data: bytes) -> tuple[Any, ...]:
    half = data[: len(data) // 2]
    return ([half],) if name == "writev" else (half,)


def _creates(given: tuple[Any, ...], settings: dict[str, Any]) -> bool:
    flags = given[1] if len(given) > 1 else settings.get("flags", 0)
    return bool(flags & os.O_CREAT)


class _CountedFile(io.FileIO):
    def __init__(self, file: Any, mode: str, counter: _Counter) -> None:
        if counter.wrong("open") and not isinstance(file, int):
            counter.fail()
        self._counter = counter
        super().__init__(file, mode)

    def write(self, data: Any) -> int:  # type: ignore[override]
        if self._counter.wrong("write"):
            super().write(bytes(data)[: len(bytes(data)) // 2])
            self._counter.fail()
        return super().write(data) or 0


def listed(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
