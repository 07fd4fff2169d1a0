"""Every test gets a cache folder of its own, and must leave no thread behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pipelinemaking import mill_threads


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = mill_threads()
    yield
    assert mill_threads() <= before
