"""Turns rotate, summaries are in order, and waiting ends when the queues are full."""

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
    found = timing.summary(rates)
    assert min(rates) <= found.low <= found.median <= found.high <= max(rates)
    assert found.median == pytest.approx(statistics.median(rates)) and found.spread >= 0


def test_of_three_rounds_all_are_shown():
    assert timing.summary([5.0, 1.0, 2.0]) == timing.Summary(2.0, 1.0, 5.0)


@given(RATES, st.floats(0.5, 20))
def test_a_slow_spell_of_the_machine_leaves_ratios_alone(rates, factor):
    found = timing.ratio([factor * rate for rate in rates], rates)
    assert found.median == pytest.approx(factor) and found.spread < 1e-6


def test_each_round_begins_with_another():
    order: list[str] = []
    turns = {name: lambda name=name: float(order.append(name) or len(order)) for name in "abc"}
    assert timing.interleave(turns, 4)["a"] == [1.0, 6.0, 8.0, 10.0]
    assert "".join(order) == "abcbcacababc"


def test_waiting_ends_after_two_quiet_looks(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5])
    looks: list[float] = []
    monkeypatch.setattr(timing, "processor_seconds", lambda: next(clock))
    monkeypatch.setattr(timing.time, "sleep", looks.append)
    timing.wait_until_quiet()  # busy, quiet, busy, quiet, quiet
    assert len(looks) == 5


def test_waiting_for_somebody_who_never_rests_ends(monkeypatch):
    clock = iter(range(10**6))
    looks: list[float] = []
    monkeypatch.setattr(timing, "processor_seconds", lambda: float(next(clock)))
    monkeypatch.setattr(timing.time, "sleep", looks.append)
    monkeypatch.setattr(timing.time, "monotonic", lambda: float(next(clock)))
    timing.wait_until_quiet()
    assert 0 < len(looks) <= timing._PATIENCE


def test_the_machine_is_described():
    found = machine.describe()
    assert found["cores"] >= 1 and found["memory_gib"] >= 1 and found["cpu"]
    assert {"patchmill", "torch", "numba"} <= set(found["versions"])


def test_what_nvidia_smi_says_of_a_gpu():
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
    found = machine.describe()
    assert found["gpus"] and found["gpu"]["cuda"] and machine.gpu("cuda")


def test_the_peak_of_memory_stays_when_the_memory_goes():
    program = (
        "from patchmill.benchmarks import machine as m; before = m.resident(); "
        "large = bytearray(b'x') * (200 << 20); del large; "
        "print(m.peak() - before > 190 << 20, m.resident() - before < 100 << 20)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["True", "True"]
