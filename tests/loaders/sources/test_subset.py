"""A subset reads its own samples, and nothing else of its source."""

from __future__ import annotations

import numpy as np
import pytest

from patchmill import loaders
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.subset import Subset

IDS = [2, 3, 5, 7, 11]


@pytest.fixture(scope="module")
def scenes():
    return open_source("scenes(count=14, size=32)")


def test_samples_are_the_sources_own(scenes):
    subset = Subset(scenes, IDS)
    assert len(subset) == subset.sample_count == 5 and subset.classes == scenes.classes
    assert subset.labels.tolist() == scenes.labels[IDS].tolist()
    for index, id in enumerate(IDS):
        assert subset.read(index) == scenes.read(id) and subset.where(index) == scenes.where(id)
    assert subset.name.startswith("5 of the 14 samples of scenes(")


def test_fingerprints_tell_sources_and_samples_apart(scenes):
    other = open_source("scenes(count=14, size=32, seed=1)")
    subsets = (
        Subset(scenes, IDS), Subset(scenes, IDS[:4]), Subset(scenes, IDS[::-1]), Subset(other, IDS)
    )  # fmt: skip
    assert len({subset.fingerprint for subset in subsets}) == 4
    assert Subset(scenes, np.array(IDS)).fingerprint == subsets[0].fingerprint


def test_a_loader_takes_a_subset(scenes):
    loader = loaders.build(Subset(scenes, IDS), "eval(size=16, short_side=16)", 2, drop_last=False)
    batches = list(loader)
    ids = np.concatenate([batch.ids.numpy() for batch in batches])
    labels = np.concatenate([batch.labels.numpy() for batch in batches])
    assert sorted(ids) == list(range(5))
    assert labels.tolist() == scenes.labels[np.array(IDS)[ids]].tolist()


def test_unreadable_samples_are_replaced_from_the_subset(scenes):
    subset = Subset(scenes, IDS)
    result = {subset.substitute(0, 0, 1, attempt) for attempt in range(40)}
    assert result <= set(range(5)) and len(result) > 1


def test_a_sample_that_is_not_there_is_an_error(scenes):
    with pytest.raises(MillError, match=r"no sample 14 in scenes\(.*its 14 samples are numbered"):
        Subset(scenes, [0, 14])
