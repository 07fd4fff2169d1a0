"""kNN against votes counted by hand, and feature extraction without side effects."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers_methods import Tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from patchmill import loaders
from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation import knn
from patchmill.training.evaluation.features import Features, extract

VIEW = "eval(size=16, short_side=16)"


def by_hand(bank, labels, query, k, temperature):
    similarity = [float(cosine_similarity(row, query, dim=0)) for row in bank]
    nearest = sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]
    votes: dict[int, float] = {}
    for i in nearest:
        label = int(labels[i])
        votes[label] = votes.get(label, 0) + math.exp(similarity[i] / temperature)
    return max(votes, key=lambda label: votes[label])


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(1, 12), st.sampled_from([0.07, 0.1, 1.0]), st.integers(1, 9))
def test_votes_are_those_counted_by_hand(count, k, temperature, chunk):
    torch.manual_seed(count * 100 + k)
    bank, queries = torch.randn(count, 5), torch.randn(7, 5)
    labels = torch.randint(4, (count,))
    expected = [by_hand(bank, labels, query, k, temperature) for query in queries]
    for size in (chunk, None):
        found = knn.classify(bank, labels, queries, k, temperature, 4, size)
        assert found.tolist() == expected


def test_vectors_are_compared_by_direction_only():
    bank, labels = torch.tensor([[1.0, 0], [0, 9]]), torch.tensor([0, 1])
    queries = torch.tensor([[50.0, 1], [1e-3, 2e-3]])
    assert knn.classify(bank, labels, queries, 1, 0.07, 2).tolist() == [0, 1]


def test_accuracy_is_a_fraction():
    bank = Features(torch.eye(4), torch.tensor([0, 1, 2, 3]), torch.arange(4))
    tests = Features(torch.eye(4), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    assert knn.accuracy(bank, tests, 1, 0.07) == 0.75


def open_scenes(count: int = 10, batch: int = 4, **options):
    source = f"scenes(count={count}, size=32)"
    return loaders.build(source, VIEW, batch, drop_last=False, workers=1, **options)


def test_every_image_has_its_row_once():
    network = Tiny().eval()
    found = extract(network, open_scenes())
    assert found.ids.tolist() == list(range(10))
    loader = open_scenes(batch=1)
    for batch in loader:
        (at,) = batch.ids.tolist()
        torch.testing.assert_close(found.rows[at], network(batch.crops()[0])[0])
        assert found.labels[at] == batch.labels[0]


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_a_limit_selects_the_same_images_for_any_batch_size(batch):
    found = extract(Tiny(), open_scenes(batch=batch), limit=6)
    expected = extract(Tiny(), open_scenes(batch=4), limit=6)
    assert torch.equal(found.ids, expected.ids) and len(found.ids) == 6


def test_evaluation_has_no_side_effects():
    network = Tiny().train()
    network.norm.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    extract(network, open_scenes())
    assert torch.equal(torch.rand(3), expected)
    assert network.training and network.conv.training and not network.norm.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_bad_image_has_no_row(tmp_path: Path):
    from PIL import Image

    for i in range(6):
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"nothing")
    (tmp_path / "a").mkdir()
    for i in range(6):
        (tmp_path / f"{i}.png").rename(tmp_path / "a" / f"{i}.png")
    ledger = tmp_path / "ledger.jsonl"
    loader = loaders.build(tmp_path, VIEW, 2, drop_last=False, workers=1, ledger=ledger)
    assert extract(Tiny(), loader).ids.tolist() == [0, 1, 2, 4, 5]


def test_a_stream_is_refused():
    loader = open_scenes()
    loader.source = SimpleNamespace(name="https://somewhere/train.tar", sample_count=None)
    with pytest.raises(MillError, match=r"train.tar is streamed and cannot be evaluated"):
        extract(Tiny(), loader)
