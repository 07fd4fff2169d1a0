import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.order.permutation import Order, share, steps


def test_orders_are_permutations_of_every_small_count():
    for count in range(301):
        ids = Order(count, seed=count).ids(1, 0, count)
        assert ids.dtype == np.int64 and sorted(ids) == list(range(count))


@pytest.mark.parametrize("count", [4096, 65_537, 1_281_167])
def test_orders_are_permutations_of_large_counts(count):
    seen = np.zeros(count, bool)
    seen[Order(count, 3).ids(2, 0, count)] = True
    assert seen.all()


def test_slices_of_huge_orders_hold_distinct_ids_from_everywhere():
    for count in (100_000_000, 10**12, 2**60):
        order = Order(count, 0)
        slices = [order.ids(0, start, start + 4096) for start in (0, count // 2, count - 4096)]
        ids = np.concatenate(slices)
        assert len(np.unique(ids)) == ids.size and ids.min() >= 0 and ids.max() < count
        assert stats.kstest(ids / count, "uniform").pvalue > 0.01


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(1, 3000), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_slices_agree_with_the_complete_order(data, count, seed, epoch):
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    order = Order(count, seed)
    assert np.array_equal(order.ids(epoch, start, stop), order.ids(epoch, 0, count)[start:stop])


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_all_orders_of_a_few_samples_are_equally_likely(count):
    order = Order(count, 1)
    seen = [tuple(order.ids(epoch, 0, count)) for epoch in range(2400)]
    counts = [seen.count(order) for order in itertools.permutations(range(count))]
    assert sum(counts) == 2400 and stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("count", [7, 64, 65, 150])
@pytest.mark.parametrize("seed", [0, 1])
def test_samples_land_everywhere_equally_often(count, seed):
    epochs = 1500
    order = Order(count, seed)
    landed = np.zeros((count, count))
    for epoch in range(epochs):
        landed[np.arange(count), order.ids(epoch, 0, count)] += 1
    # Rows and columns each sum to the number of epochs, which takes 2 n - 1 degrees of freedom
    # and makes the cells of a row less variable than free ones by (n - 1) / n.
    chi_square = ((landed - epochs / count) ** 2).sum() / (epochs / count) * (count - 1) / count
    assert 0.001 < stats.chi2.sf(chi_square, (count - 1) ** 2) < 0.999


def test_neighbours_do_not_stay_together():
    ids = Order(20_000, 4).ids(0, 0, 20_000)
    for lag in (1, 2, 3, 100):
        steps_between = np.histogram((ids[lag:] - ids[:-lag]) % 20_000, 100, (0, 20_000))[0]
        assert stats.chisquare(steps_between).pvalue > 0.001
    table = np.histogram2d(np.arange(20_000), ids, 20)[0]
    assert stats.chi2_contingency(table).pvalue > 0.01


@pytest.mark.parametrize("other", [(0, 1), (1, 0), (2**32, 0), (2**63, 0), (0, 2**31)])
def test_epochs_and_seeds_are_unrelated(other):
    seed, epoch = other
    n = 20_000
    first, second = Order(n, 0).ids(0, 0, n), Order(n, seed).ids(epoch, 0, n)
    assert np.sum(first == second) < 10
    table = np.histogram2d(first, second, 20)[0]
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_orders_never_change_by_accident():
    assert Order(1000, 0).ids(0, 0, 6).tolist() == [568, 765, 433, 33, 453, 83]
    assert Order(1_281_167, 7).ids(3, 500_000, 500_006).tolist() == [
        279165,
        457795,
        853754,
        715863,
        1265338,
        1152389,
    ]
    assert Order(5, 2**64 - 1).ids(2**32 - 1, 0, 5).tolist() == [2, 1, 4, 0, 3]


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_share_each_step_s_slice_in_order(world):
    shares = [share(1000, 48, 3, rank, world) for rank in range(world)]
    batch = 48 // world
    assert shares == [(144 + rank * batch, 144 + (rank + 1) * batch) for rank in range(world)]


@given(st.integers(0, 500), st.integers(1, 64), st.integers(1, 9))
def test_an_epoch_is_consumed_completely_and_evenly(count, batch, world):
    taken = []
    for step in range(steps(count, batch * world, drop_last=False)):
        shares = [share(count, batch * world, step, rank, world) for rank in range(world)]
        sizes = [stop - start for start, stop in shares]
        assert max(sizes) - min(sizes) <= 1 and max(sizes) <= batch
        taken += [i for start, stop in shares for i in range(start, stop)]
    assert taken == list(range(count))


def test_the_last_incomplete_step_is_dropped_or_kept():
    assert steps(100, 32, drop_last=True) == 3
    assert steps(100, 32, drop_last=False) == 4
    assert steps(96, 32, drop_last=False) == 3
    assert [share(100, 32, 3, rank, 4) for rank in range(4)] == [
        (96, 97),
        (97, 98),
        (98, 99),
        (99, 100),
    ]
    assert [share(98, 32, 3, rank, 4) for rank in range(4)] == [
        (96, 96),
        (96, 97),
        (97, 97),
        (97, 98),
    ]


@pytest.mark.parametrize(
    ("attempt", "complaint"),
    [
        (lambda: Order(-1, 0), "0 to .* samples, not -1"),
        (lambda: Order(10, -1), "the seed must be"),
        (lambda: Order(10, 2**64), "the seed must be"),
        (lambda: Order(10, 0).ids(0, 5, 11), "10 samples has no positions 5 to 11"),
        (lambda: Order(10, 0).ids(0, -1, 3), "no positions -1 to 3"),
        (lambda: Order(10, 0).ids(0, 4, 3), "no positions 4 to 3"),
        (lambda: Order(10, 0).ids(-1, 0, 3), "the epoch must be"),
        (lambda: Order(10, 0).ids(2**32, 0, 3), "the epoch must be"),
    ],
)
def test_invalid_arguments_are_refused(attempt, complaint):
    with pytest.raises(MillError, match=complaint):
        attempt()
