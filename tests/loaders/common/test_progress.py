"""Progress bars and log lines of long work."""

import logging
import sys

import pytest

from patchmill.loaders.common import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_show_rate_and_time_left(clock: list[float], caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "patchmill")
    with progress.track("preparing", 10_000, done=4000, unit="images") as advance:
        advance(10)
        clock[0] += 2
        advance(1990)
        clock[0] += 2
        advance(1000)  # too early for another line
        clock[0] += 10
        advance(500)
    assert [record.getMessage() for record in caplog.records] == [
        "preparing: 6,000 of 10,000, 1,000 images/s, 0:00:04 left",
        "preparing: 7,500 of 10,000, 250 images/s, 0:00:10 left",
    ]


def test_without_a_unit_lines_only_count(clock: list[float], caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "patchmill")
    with progress.track("listing") as advance:
        clock[0] += 2
        advance(1234)
    assert [record.getMessage() for record in caplog.records] == ["listing: 1,234"]


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.0)
    with progress.track("preparing", 10, done=4, unit="images") as advance:
        advance(6)
    assert "preparing" in capsys.readouterr().err
