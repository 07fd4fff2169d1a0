"""Says so when Numba compiles: without a word, a first start would look as if it hung."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

log = logging.getLogger("patchmill")

_NOTICE = "compiling the CPU kernels for this machine: about half a minute, once"
_QUIET_SECONDS = 1.5  # loading the kernels from Numba's cache is quicker


@contextlib.contextmanager
def announced() -> Iterator[None]:
    """Around the first call of compiled functions: a notice where it takes long."""
    timer = threading.Timer(_QUIET_SECONDS, log.warning, (_NOTICE,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
