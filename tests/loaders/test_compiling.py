"""The notice that kernels are being compiled."""

from __future__ import annotations

import threading

import pytest

from patchmill.loaders import compiling


def test_compiling_that_takes_long_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    said = threading.Event()
    monkeypatch.setattr(compiling, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(compiling.log, "warning", lambda text: said.set())
    with compiling.announced():
        assert said.wait(30)


def test_compiling_that_is_over_at_once_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_QUIET_SECONDS", 1000.0)
    with compiling.announced():
        timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for timer in timers:
        timer.join(30)
    assert timers and not any(timer.is_alive() for timer in timers)
