"""`jit`: numba's njit as this project uses it, with an on-disk cache that knows all its sources.

Numba compiles a cached function anew when the file that holds it changes, but not when a constant
or a function that it uses lives in another file that changed. Here a cached function is named after
the contents of all those files, so that an update can never run half old, half new machine code.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import pickle
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.serialize import dumps

import patchmill

log = logging.getLogger("patchmill")


def jit(function: Callable[..., Any]) -> Any:
    """Compile on first call: no GIL, no Python objects, floats as fast as they go, cached on disk.

    `fastmath` lets the compiler fuse and reorder; runs of one binary on one machine stay
    bit-identical.
    """
    return _cached(function, fastmath=True)


def jit_ieee(function: Callable[..., Any]) -> Any:
    """As `jit`, but with IEEE arithmetic: for draws that must be the same on every machine."""
    return _cached(function, fastmath=False)


NOTICE = "compiling the CPU kernels for this machine: about half a minute, once"


@contextmanager
def announce_compilation(after_s: float = 1.0) -> Iterator[None]:
    """Say so if anything is compiled meanwhile, rather than loaded, and it takes long."""
    timer = threading.Timer(after_s, log.warning, (NOTICE,))
    timer.daemon = True
    try:
        with event.install_listener("numba:compile", _Starter(timer)):
            yield
    finally:
        timer.cancel()


class _Starter(event.Listener):
    def __init__(self, timer: threading.Timer) -> None:
        self._timer = timer

    def on_start(self, event: Any) -> None:
        with suppress(RuntimeError):  # started by an earlier function
            self._timer.start()

    def on_end(self, event: Any) -> None:
        pass


# ---------------------------------------------------------------------------------------- the cache


def _cached(function: Callable[..., Any], fastmath: bool) -> Any:
    options = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the installation nor the user's cache folder can be written
        _warn_once("compiled code cannot be kept: point NUMBA_CACHE_DIR to a folder of yours")
        return numba.njit(**options)(function)
    cache = compiled._cache
    if hasattr(cache, "_cache_file"):  # not public in numba; without it numba's own files will do
        folder, name = cache._cache_path, cache._impl.filename_base
        cache._cache_file = _Files(Path(folder), name, _stamp(Path(function.__code__.co_filename)))
    return compiled


class _Files:
    """Compiled variants of one function, each in a file named after sources and signature.

    Numba's own scheme lists the variants in an index. Processes that compile at the same time, on
    unlike processors that share a disk, can leave it pointing at each other's machine code.
    """

    def __init__(self, folder: Path, name: str, stamp: str) -> None:
        self._folder, self._name, self._stamp = folder, name, stamp

    def load(self, key: Any) -> Any:
        try:
            return pickle.loads(self._path(key).read_bytes())
        except Exception:  # missing, or the remains of a crash: compile
            return None

    def save(self, key: Any, data: Any) -> None:
        path = self._path(key)
        half = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            half.write_bytes(dumps(data))
            half.replace(path)
            for other in self._folder.glob(f"{self._name}.*.nbc"):
                if not other.name.startswith(f"{self._name}.{self._stamp}."):
                    other.unlink(missing_ok=True)  # of sources that were
        except OSError as error:
            _warn_once(f"compiled code cannot be kept in {self._folder}: {error.strerror}")
            with suppress(OSError):
                half.unlink()

    def _path(self, key: Any) -> Path:
        variant = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return self._folder / f"{self._name}.{self._stamp}.{variant}.nbc"


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)


# ----------------------------------------------------------------------- what a function is made of

_IMPORT = re.compile(r"^(?:from (patchmill[\w.]*) )?import (\([^)]*\)|.*)", re.M)
_COMPILES = re.compile(
    r"^(?:from|import) (?:numba|llvmlite|patchmill\.kernels\.common\.jit)\b", re.M
)
_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")


@functools.cache
def _stamp(path: Path) -> str:
    everything = "\0".join([numba.__version__, *sorted(sources(path).values())])
    return hashlib.sha256(everything.encode()).hexdigest()[:16]


def sources(path: Path) -> dict[Path, str]:
    """The file and all of ours whose contents may end up in its compiled code, with their texts."""
    found = {path: path.read_text(encoding="utf-8")}
    pending = [path]
    for file in pending:
        for other, text in _used(found[file]):
            if other not in found:
                found[other] = text
                pending.append(other)
    return found


def _used(text: str) -> Iterator[tuple[Path, str]]:
    """The imported modules of ours that compile code, or whose constants compiled code may use.

    Classes and plain functions, which is what everything else exports, cannot be compiled in.
    """
    for module, listed in _IMPORT.findall(text):
        names = re.findall(r"\w+", re.sub(r" as \w+", "", listed))
        submodules = [_source(f"{module}.{name}") for name in names]
        yield from filter(None, submodules)
        if source := _source(module):
            exported = source[0].name == "__init__.py" and not all(submodules)
            if exported or _COMPILES.search(source[1]) or any(map(_CONSTANT.fullmatch, names)):
                yield source


@functools.cache
def _source(module: str) -> tuple[Path, str] | None:
    """File and text of a module of this package; None where there is none of that name."""
    package, *inner = module.split(".")
    if package == "patchmill" and inner:
        for root in patchmill.__path__:
            for path in (Path(root, *inner).with_suffix(".py"), Path(root, *inner, "__init__.py")):
                if path.is_file():
                    return path, path.read_text(encoding="utf-8")
    return None
