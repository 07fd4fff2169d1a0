"""Benchmarks under test wait only briefly for their own queues to fill."""

from __future__ import annotations

import pytest

from patchmill.benchmarks.lib import timing


@pytest.fixture(autouse=True)
def short_waits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten waits to hundredths of a second, even if other tests keep the process busy."""
    if request.path.stem != "test_timing":
        monkeypatch.setattr(timing, "_POLL_SECONDS", 0.01)
        monkeypatch.setattr(timing, "_TIMEOUT_SECONDS", 0.2)
