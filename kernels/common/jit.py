"""`jit` and `jit_ieee`: Numba's njit with an on-disk cache keyed by the contents of all sources.

Numba invalidates a cached function when its own file changes, but not when a constant or a function
that it uses changes in another file. Here the cache key hashes all of those files, so that an
update never mixes old and new machine code.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import pickle
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core.serialize import dumps

import patchmill
from patchmill.kernels import compiled_code
from patchmill.kernels.common.compiling import TURN

log = logging.getLogger("patchmill")

_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def jit(function: Callable[..., Any]) -> Any:
    """Compile on first call: nopython, nogil, fastmath, cached on disk.

    Fastmath lets the compiler fuse and reorder float operations to suit the CPU; the same binary on
    the same machine still gives bit-identical results.
    """
    return _compile(function, fastmath=True)


def jit_ieee(function: Callable[..., Any]) -> Any:
    """`jit` without fastmath: IEEE arithmetic, for results that must match on every machine."""
    return _compile(function, fastmath=False)


def jit_inline(function: Callable[..., Any]) -> Any:
    """`jit` for a function with a single, compiled caller, into which it is inlined.

    This compiles faster, since LLVM optimises every function again with each of its callers. It
    has fastmath if its caller has.
    """
    return numba.njit(inline="always", **_OPTIONS)(function)


def jit_lanes(function: Callable[..., Any]) -> Any:
    """`jit` for a few vector operations: always inlined into its callers.

    A call would pass the vectors through memory. Without fastmath, like `jit_ieee`.
    """
    return numba.njit(forceinline=True, **_OPTIONS)(function)


# -------------------------------------------------------------------------------- on-disk cache


def _compile(function: Callable[..., Any], fastmath: bool) -> Any:
    options = {**_OPTIONS, "fastmath": fastmath}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the installation nor the user's cache folder is writable
        _warn_once("compiled kernels cannot be cached: set NUMBA_CACHE_DIR to a writable folder")
        return numba.njit(**options)(function)
    source, cache = Path(function.__code__.co_filename), compiled._cache
    folder = compiled_code.folder(Path(cache._cache_path), source)
    if folder is None:
        return numba.njit(**options)(function)
    if hasattr(cache, "_cache_file"):  # private in Numba; without it, Numba's own cache is used
        name, is_own = cache._impl.filename_base, folder == source.parent / "__pycache__"
        cache._cache_file = _VariantFiles(folder, name, _source_hash(source), is_own)
    return compiled


class _VariantFiles:
    """Compiled variants of one function, one file each, named by source hash and signature.

    Replaces Numba's index file: processes compiling concurrently, on different CPU models that
    share a disk, can leave an index that points at each other's machine code.
    """

    def __init__(self, folder: Path, name: str, source_hash: str, beside_source: bool) -> None:
        self._folder, self._name, self._source_hash = folder, name, source_hash
        self._problem = _no_problem if beside_source else compiled_code.problem

    def load(self, key: Any) -> Any:
        path = self._path(key)
        if not path.is_file():
            TURN.take(self._folder, path.is_file)
        try:
            return pickle.loads(compiled_code.read(path, self._problem))
        except Exception:  # missing, owned by another user, or truncated by a crash: compile
            return None

    def save(self, key: Any, data: Any) -> None:
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            compiled_code.write_new(temporary, dumps(data))
            temporary.replace(path)
            TURN.saved += 1
            for other in self._folder.glob(f"{self._name}.*.nbc"):
                if not other.name.startswith(f"{self._name}.{self._source_hash}."):
                    other.unlink(missing_ok=True)  # compiled from older sources
        except OSError as error:
            _warn_once(f"compiled kernels cannot be cached in {self._folder}: {error.strerror}")
            with suppress(OSError):
                temporary.unlink()
        finally:
            TURN.end()

    def _path(self, key: Any) -> Path:
        variant = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return self._folder / f"{self._name}.{self._source_hash}.{variant}.nbc"


def _no_problem(status: object) -> None:
    """Report no problem, whoever owns the file."""


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)


# ------------------------------------------------------------------- sources of a compiled function

_IMPORT = re.compile(r"^(?:from (patchmill[\w.]*) )?import (\([^)]*\)|.*)", re.M)
_COMPILES = re.compile(
    r"^(?:from|import) (?:numba|llvmlite|patchmill\.kernels\.common\.jit)\b", re.M
)
_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")


@functools.cache
def _source_hash(path: Path) -> str:
    content = "\0".join([numba.__version__, *sorted(sources(path).values())])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def sources(path: Path) -> dict[Path, str]:
    """Source texts of the file and of all patchmill files that may be compiled into it."""
    texts = {path: path.read_text(encoding="utf-8")}
    pending = [path]
    for file in pending:
        for other, text in _imported(texts[file]):
            if other not in texts:
                texts[other] = text
                pending.append(other)
    return texts


def _imported(text: str) -> Iterator[tuple[Path, str]]:
    """Yield imported patchmill modules that compile code or export constants, with their texts.

    Modules that export only classes and plain functions are skipped: neither can be compiled in.
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
    """File and text of a patchmill module, or None if there is no such module."""
    package, *inner = module.split(".")
    if package == "patchmill" and inner:
        for root in patchmill.__path__:
            for path in (Path(root, *inner).with_suffix(".py"), Path(root, *inner, "__init__.py")):
                if path.is_file():
                    return path, path.read_text(encoding="utf-8")
    return None
