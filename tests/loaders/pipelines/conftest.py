"""Every test gets a cache folder of its own, and must leave no thread behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers_pipelines import mill_threads

from patchmill.loaders.pipelines import crew, spec
from patchmill.loaders.pipelines.spec import unavailable


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def threads_have_time_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy with other tests, too."""
    monkeypatch.setattr(crew, "JOIN_TIMEOUT_S", 5.0)


@pytest.fixture(autouse=True)
def nothing_was_logged_yet() -> None:
    """Forget what `log_once` has logged in this process."""
    spec.log_once.cache_clear()


@pytest.fixture(params=["threads", "dali"])
def pipeline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with every pipeline: `make_loader` reads the variable."""
    if request.param == "dali" and unavailable("nvidia.dali"):
        pytest.skip("needs DALI")
    monkeypatch.setenv("TEST_PIPELINE", request.param)
    return request.param


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = mill_threads()
    yield
    assert mill_threads() <= before
