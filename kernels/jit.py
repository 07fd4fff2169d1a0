"""`jit`: numba's njit as this project uses it, with an on-disk cache that knows all of our sources.

Numba invalidates a cached function when the file that holds it changes, but not when a function it
calls lives in another file that changed. Here the stamp covers every file of the package that may
be inlined, so that an update can never run half old, half new machine code.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

import patchmill


def jit(function: Callable[..., Any]) -> Any:
    """Compile on first call: no GIL, no Python objects, floats as fast as they go, cached on disk.

    `fastmath` lets the compiler fuse and reorder; runs of one binary on one machine stay
    bit-identical.
    """
    compiled = numba.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")(function)
    _stamp(compiled)
    return compiled


def exact(function: Callable[..., Any]) -> Any:
    """As `jit`, but with IEEE arithmetic: for draws that must be the same on every machine."""
    compiled = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    _stamp(compiled)
    return compiled


def _stamp(compiled: Any) -> None:
    # Not public in numba, hence the guard; the stamp is compared for equality when an index is
    # read.
    cache_file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if cache_file is not None and hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = (cache_file._source_stamp, _sources())


@functools.cache
def _sources() -> str:
    digest = hashlib.sha256()
    for root in patchmill.__path__:
        for folder in ("kernels", "loaders"):
            for path in sorted(Path(root, folder).rglob("*.py")):
                text = path.read_bytes()
                if b"jit" in text or b"numba" in text:
                    digest.update(text)
    return digest.hexdigest()
