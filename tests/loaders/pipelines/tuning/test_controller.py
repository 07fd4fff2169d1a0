"""The controller of workers and prefetch on made-up machines: right, bounded, and never worse."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_machines import Machine
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.pipelines.tuning import controller
from patchmill.loaders.pipelines.tuning.controller import Decision, Limits, Setting, Window


def sleeps(seconds: float):
    return lambda rng: seconds


def hangs(share: float, seconds: float):
    """Reads of which a few take long."""
    return lambda rng: seconds if rng.random() < share else 0.0


@pytest.mark.parametrize("cores", [1, 2, 8, 32])
def test_decoding_is_the_limit_so_there_is_one_worker_per_core(cores: int):
    decision = Machine(cores=cores).tune()
    assert decision.setting.workers == cores
    assert "workers are busy for 100% of the time, and reads wait for 0% of that" in decision.why


@pytest.mark.parametrize("batch_size", [4, 32, 256])
def test_a_slow_disk_gets_as_many_workers_as_keep_the_cores_busy(batch_size: int):
    machine = Machine(read=sleeps(0.02), batch_size=batch_size)  # and 3 ms of a core each
    decision = machine.tune()
    assert 14 <= decision.setting.workers <= 18
    assert machine.rate(decision.setting) > 6 * machine.rate(Setting(2, 2))
    assert len(machine.windows) <= 5
    assert "reads waited for 87% of a worker's time" in decision.why


def test_so_do_images_that_need_no_core():
    machine = Machine(read=sleeps(0.02), cpu=1e-4, batch_size=256)
    assert machine.tune().setting.workers == 32  # the limit


@pytest.mark.parametrize(("channels", "workers"), [(1, 2), (4, 8)])
def test_a_disk_that_serves_few_reads_at_a_time_gets_no_more(channels: int, workers: int):
    decision = Machine(read=sleeps(0.02), channels=channels).tune()
    assert decision.setting.workers == workers


def test_reads_of_uneven_times_get_more_batches_ahead():
    machine = Machine(cores=4, read=hangs(0.01, 0.3), step=0.025)
    decision = machine.tune()
    assert decision.setting.prefetch >= 8
    assert machine.rate(decision.setting) > 2 * machine.rate(Setting(4, 2))


def test_small_batches_get_enough_ahead_for_all_workers():
    machine = Machine(cores=16, batch_size=4)
    assert machine.tune().setting == Setting(16, 8)
    assert machine.rate(Setting(16, 8)) > 1.2 * machine.rate(Setting(16, 2))


def test_a_slow_training_loop_leaves_everything_as_it_was():
    decision = Machine(step=0.2).tune()
    assert decision == Decision(Setting(2, 2), True, "the training loop waits 0% of the time")


def test_a_slow_first_step_does_not_settle_it():
    machine = Machine(read=sleeps(0.02))
    compiling = Window(Setting(2, 2), 60.0, 96, 0.1, 2.0, 0.3, 1.8)
    assert not controller.decide([compiling], Setting(2, 2), machine.limits()).settled
    waiting = machine.run(Setting(2, 2))
    decision = controller.decide([compiling, waiting], Setting(2, 2), machine.limits())
    assert decision.setting.workers == 8 and not decision.settled


@pytest.mark.parametrize(("rates", "best"), [((8000, 9000), 2), ((8000, 8100), 16)])
def test_workers_that_hinder_each_other_are_let_go(rates: tuple[int, int], best: int):
    """Threads that fight for a lock: few are tried, and stay if they are faster."""
    limits, windows = Limits(16, 256, (1, 64), (2, 2)), list[Window]()
    while not (decision := controller.decide(windows, Setting(16, 2), limits)).settled:
        workers = decision.setting.workers
        rate = rates[workers < 16]
        windows.append(Window(decision.setting, 1.0, rate, 1.0, workers * 0.99, 1.3, 0.1))
    assert windows[1].setting == Setting(2, 2) and len(windows) <= 7
    assert decision.setting == Setting(best, 2)
    if best == 2:
        assert "workers got the time of 1.3 cores: 9,000 images/s, and 8,000 w" in decision.why


def test_a_gain_that_was_an_accident_is_measured_again():
    """Another program took the cores in the first window only."""
    limits, windows = Limits(2, 256, (1, 64), (2, 2)), list[Window]()
    while not (decision := controller.decide(windows, Setting(2, 2), limits)).settled:
        workers, rate = decision.setting.workers, 1000 if windows else 700
        windows.append(Window(decision.setting, 1.0, rate, 1.0, workers * 0.99, 1.0, 0.8))
    assert decision.setting == Setting(2, 2)
    assert [window.setting for window in windows].count(Setting(2, 2)) == 2


def test_what_is_fixed_stays_and_is_not_named():
    machine = Machine(cores=4, read=hangs(0.01, 0.3), step=0.025)
    decision = machine.tune(machine.limits(workers=(4, 4)))
    assert decision.setting.workers == 4 and decision.setting.prefetch > 2
    assert "with prefetch=2" in decision.why and "workers=" not in decision.why
    decision = machine.tune(machine.limits(prefetch=(2, 2)))
    assert decision.setting.prefetch == 2


def test_limits_are_for_the_start_too():
    limits = Limits(8, 4, (1, 6), (1, 1))
    assert controller.decide([], Setting(8, 2), limits) == Decision(Setting(6, 1))


machines = st.builds(
    Machine,
    cores=st.integers(1, 8),
    cpu=st.floats(2e-4, 0.01),
    read=st.one_of(
        st.floats(0, 0.05).map(sleeps),
        st.floats(0, 0.02).map(lambda mean: lambda rng: rng.exponential(mean)),
        st.floats(0.001, 0.05).map(lambda share: hangs(share, 0.2)),
    ),
    channels=st.integers(1, 64),
    step=st.sampled_from([0.0, 0.005, 0.05]),
    batch_size=st.sampled_from([4, 32, 128]),
    locked=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 9),
)


@settings(deadline=None, max_examples=25)
@given(machines, st.integers(1, 40), st.integers(1, 16))
def test_any_machine_settles_within_limits_and_is_no_slower(machine, workers: int, prefetch: int):
    limits = machine.limits((1, workers), (1, prefetch))
    start = limits.clip(machine.cores, 2)
    decision = machine.tune(limits)
    assert 1 <= decision.setting.workers <= workers and 1 <= decision.setting.prefetch <= prefetch
    assert decision.why
    before, after = machine.run(start).rate, machine.run(decision.setting).rate
    assert after >= before * 0.99  # of the windows that were compared


def test_hopeless_measurements_divide_nothing_by_zero():
    still = Window(Setting(2, 2), 3.0, 0, 3.0, 0.0, 0.0, 0.0)
    decision = controller.decide([still], Setting(2, 2), Limits(2, 4, (1, 64), (1, 16)))
    assert isinstance(decision.setting, Setting)
    assert np.isfinite(still.blocked) and still.idle == 1
