"""Memory, threads or files that run out in a loader: one sentence, and no sample blamed."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_pipelines import RECIPE, Pictures, make_loader, mill_threads

from patchmill.kernels.views.cpu.render import Scratch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines import spec
from patchmill.loaders.sources import open_source

pytestmark = pytest.mark.usefixtures("pipeline")

FAR_TOO_MUCH = 1 << 60
WAYS: dict[str, Callable[[], object]] = {
    "for an array with shape": lambda: np.empty(FAR_TOO_MUCH, np.uint8),
    "you tried to allocate 1152921504606846976 bytes": lambda: torch.empty(
        FAR_TOO_MUCH, dtype=torch.uint8
    ),
    "an allocation failed": lambda: bytearray(FAR_TOO_MUCH),
    "Cannot allocate memory": lambda: fail(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))),
    "can't start new thread": lambda: fail(RuntimeError("can't start new thread")),
}


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("words", WAYS)
def test_a_worker_without_memory_is_one_sentence(words: str) -> None:
    short = [True]
    source = Pictures(24, lambda index: WAYS[words]() if index == 9 and short[0] else None)
    loader = make_loader(source, workers=3)
    with pytest.raises(MillError, match=r"there is no (memory|thread) for another batch") as raised:
        list(loader)
    told = str(raised.value)
    assert words in told and "\n" not in told
    assert "use fewer workers (3 now), a smaller batch_size, prefetch (2) or cache" in told
    assert raised.value.__context__ is None  # else the error holds the frames of the worker
    assert not mill_threads() and len(loader.ledger) == 0
    short[0] = False
    assert sum(len(batch) for batch in loader) == 24


def test_a_renderer_without_scratch_memory_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = make_loader(24, RECIPE, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(Scratch, "at_least", lambda scratch, need: bytearray(FAR_TOO_MUCH))
        with pytest.raises(MillError, match="use a smaller batch_size, prefetch"):
            list(loader)
    assert not mill_threads()
    assert sum(len(batch) for batch in loader) == 24


def test_a_loader_that_cannot_be_built_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoMemory:
        def open(self, config: object) -> None:
            bytearray(FAR_TOO_MUCH)

    monkeypatch.setattr(spec, "choose", lambda name: NoMemory())
    with pytest.raises(MillError, match=r"no memory for the loader's workers and batches .* use f"):
        make_loader(24)


def test_files_that_cannot_be_opened_are_no_bad_samples(tmp_path: Path) -> None:
    for index in range(24):
        (tmp_path / f"{index}.png").write_bytes(Pictures(24).read(index))
    loader = make_loader(open_source(tmp_path), workers=2)
    list(loader)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
        with pytest.raises(MillError, match=r"no more files can be opened for .* ulimit -n"):
            list(loader)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert len(loader.ledger) == 0
    assert sum(len(batch) for batch in loader) == 24
