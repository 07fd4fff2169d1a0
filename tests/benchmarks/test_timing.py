"""Interleaving, summaries, waiting for an idle process, and the machine's description."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.benchmarks.lib import machine, timing

RATES = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=9)


@given(RATES)
def test_a_summary_is_in_order_and_within_the_rounds(rates):
    result = timing.summary(rates)
    assert min(rates) <= result.low <= result.median <= result.high <= max(rates)
    assert result.median == pytest.approx(statistics.median(rates)) and result.spread >= 0


def test_the_range_of_three_rounds_is_their_minimum_and_maximum():
    assert timing.summary([5.0, 1.0, 2.0]) == timing.Summary(2.0, 1.0, 5.0)


@given(RATES, st.floats(0.5, 20))
def test_ratios_do_not_depend_on_the_speed_of_the_machine(rates, factor):
    result = timing.ratio([factor * rate for rate in rates], rates)
    assert result.median == pytest.approx(factor) and result.spread < 1e-6


def test_each_round_starts_with_another_contender():
    order: list[str] = []
    turns = {name: lambda name=name: float(order.append(name) or len(order)) for name in "abc"}
    assert timing.interleave(turns, 4)["a"] == [1.0, 6.0, 8.0, 10.0]
    assert "".join(order) == "abcbcacababc"


def test_waiting_ends_after_two_idle_polls(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5])
    polls: list[float] = []
    monkeypatch.setattr(timing, "cpu_seconds", lambda: next(clock))
    monkeypatch.setattr(timing.time, "sleep", polls.append)
    timing.wait_until_idle()  # busy, idle, busy, idle, idle
    assert len(polls) == 5


def test_a_process_that_is_never_idle_is_waited_for_a_minute_in_all(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(timing, "_in_vain", 0.0)
    monkeypatch.setattr(timing, "cpu_seconds", lambda: clock[0])
    monkeypatch.setattr(timing.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(timing.time, "sleep", lambda s: clock.append(clock.pop() + s))
    waits = []
    for _ in range(20):
        began = clock[0]
        timing.wait_until_idle()
        waits.append(clock[0] - began)
    assert max(waits) == pytest.approx(30, abs=0.2)
    assert sum(waits) == pytest.approx(60, abs=0.5)
    assert capsys.readouterr().err.count("busy before its turns for 60 s") == 1


def test_the_machine_is_described():
    result = machine.describe()
    assert result["cores"] >= 1 and result["memory_gib"] >= 1 and result["cpu"]
    assert {"patchmill", "torch", "numba"} <= set(result["versions"])


def test_the_output_of_nvidia_smi_is_parsed():
    line = "NVIDIA H200, 580.65.06, 143771, 1980, 3201, 700.00\n"
    assert machine.parse_gpu_facts(line) == {
        "name": "NVIDIA H200",
        "driver": "580.65.06",
        "memory_mib": 143771,
        "clock_mhz": 1980,
        "memory_clock_mhz": 3201,
        "power_limit_w": 700,
    }
    assert machine.parse_gpu_facts("GPU, [N/A]") == {"name": "GPU", "driver": "[N/A]"}


@pytest.mark.gpu
def test_the_gpu_is_described():
    result = machine.describe()
    assert result["gpus"] and result["gpu"]["cuda"] and machine.gpu("cuda")


def test_peak_memory_does_not_shrink():
    program = (
        "from patchmill.benchmarks.lib import machine as m; before = m.resident_bytes(); "
        "large = bytearray(b'x') * (200 << 20); del large; "
        "print(m.peak_bytes() - before > 190 << 20, m.resident_bytes() - before < 100 << 20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]
