"""Linear probes: accuracy, reported epochs, and independence of each other."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from patchmill.training.evaluation import linear
from patchmill.training.evaluation.features import Features

SHORT = linear.PROTOCOLS["emp_ssl"]._replace(epochs=8, batch=16)


def clusters(count: int, apart: float, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    rows = torch.randn(count, 6, generator=generator) + apart * torch.eye(6)[labels]
    return Features(rows, labels, torch.arange(count))


def test_separable_clusters_are_classified_perfectly():
    (found,) = linear.probe(clusters(120, 12.0), clusters(60, 12.0, seed=1), SHORT)
    assert found == (0.03, 1.0, 1.0)


def test_last_and_best_epoch_are_both_reported():
    wild = linear.PROTOCOLS["nmce"]._replace(epochs=12, batch=16)  # its rate never falls
    (found,) = linear.probe(clusters(60, 0.8), clusters(60, 0.8, seed=1), wild, rates=[3.0])
    assert found.last < found.best < 1


def test_probes_side_by_side_are_independent():
    train, tests = clusters(90, 1.0), clusters(60, 1.0, seed=1)
    rates = [0.003, 0.1, 1.0]
    together = linear.probe(train, tests, SHORT, rates, seed=4)
    alone = [linear.probe(train, tests, SHORT, [lr], seed=4)[0] for lr in rates]
    assert together == alone
    assert len({found.last for found in together}) > 1


def test_one_classifier_is_scored_on_several_test_sets():
    train = clusters(90, 1.0)
    tests = {"few": clusters(30, 1.0, seed=1), "many": clusters(60, 1.0, seed=2)}
    found = linear.accuracies(train, tests, SHORT, seed=4)
    alone = {name: linear.probe(train, test, SHORT, seed=4)[0].last for name, test in tests.items()}
    assert found == alone and len(set(found.values())) == 2


@pytest.mark.parametrize(
    ("name", "lr", "decay", "schedule"),
    [
        ("moco", 30.0, 0.0, lambda sgd: lr_scheduler.MultiStepLR(sgd, [60, 80])),
        ("vicreg", 0.02, 1e-6, lambda sgd: lr_scheduler.CosineAnnealingLR(sgd, 100)),
        ("emp_ssl", 0.03, 5e-5, lambda sgd: lr_scheduler.CosineAnnealingLR(sgd, 100)),
        ("dino", 0.001, 0.0, lambda sgd: lr_scheduler.CosineAnnealingLR(sgd, 100)),
        ("nmce", 0.1, 5e-5, lambda sgd: lr_scheduler.ConstantLR(sgd, 1.0)),
    ],
)
def test_a_protocol_is_torchs_sgd_with_a_schedule_by_epoch(name, lr, decay, schedule, monkeypatch):
    """100 epochs of the released probes, written out: all step their schedule once an epoch."""
    protocol, made = linear.PROTOCOLS[name]._replace(batch=40), []
    monkeypatch.setattr(
        linear, "_layers", lambda *sizes, make=linear._layers: made.append(make(*sizes)) or made[-1]
    )
    train, tests = clusters(80, 1.0), clusters(60, 1.0, seed=1)
    found = linear.probe(train, tests, protocol, seed=7)[0].last
    (layer,) = linear._layers(6, 3, 1, 7)
    optimiser = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9, weight_decay=decay)
    scheduler = schedule(optimiser)
    generator = torch.Generator().manual_seed(7)
    for _ in range(100):
        for batch in torch.randperm(80, generator=generator).split(40):
            loss = torch.nn.functional.cross_entropy(layer(train.rows[batch]), train.labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        scheduler.step()
    torch.testing.assert_close(made[0][0].weight, layer.weight, rtol=1e-4, atol=1e-6)
    expected = (layer(tests.rows).argmax(1) == tests.labels).float().mean().item()
    assert found == pytest.approx(expected)


def test_published_protocols_are_all_there():
    rates = {name: protocol.optim.lr for name, protocol in linear.PROTOCOLS.items()}
    assert rates == {"moco": 30, "vicreg": 0.02, "emp_ssl": 0.03, "dino": 0.001, "nmce": 0.1}


def test_features_can_be_extracted_again_in_each_epoch():
    train, tests = clusters(60, 2.0), clusters(30, 2.0, seed=1)
    calls = []
    found = linear.probe(lambda: calls.append(1) or train, tests, SHORT)
    assert found == linear.probe(train, tests, SHORT) and len(calls) == SHORT.epochs
