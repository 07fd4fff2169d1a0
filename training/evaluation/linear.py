"""Linear probes on cached features, with the papers' protocols.

Published ImageNet probes see new random crops in each epoch, so the network runs in every epoch. On
cached features, of one view or of a mean over patches, a probe takes seconds and sees the same
vectors in every epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from patchmill.training.config.settings import Optim
from patchmill.training.evaluation.features import Features
from patchmill.training.optim import schedules


class Protocol(NamedTuple):
    optim: Optim
    epochs: int
    batch: int


def _sgd(lr: float, decay: float, **schedule: object) -> Optim:
    return Optim(lr=lr, weight_decay=decay, momentum=0.9, exclude=False, **schedule)  # type: ignore[arg-type]


STEPS = dict(schedule="steps", milestones=(60.0, 80.0), gamma=0.1)
PROTOCOLS = {
    "moco": Protocol(_sgd(30.0, 0.0, **STEPS), 100, 256),  # facebookresearch/moco, main_lincls.py
    # facebookresearch/vicreg, README and evaluate.py
    "vicreg": Protocol(_sgd(0.02, 1e-6, per_epoch=True), 100, 256),
    "emp_ssl": Protocol(_sgd(0.03, 5e-5, per_epoch=True), 100, 100),  # tsb0601/EMP-SSL, evaluate.py
    # facebookresearch/dino, eval_linear.py: a learning rate of 0.001 for a batch size of 256
    "dino": Protocol(_sgd(0.001, 0.0, per_epoch=True), 100, 256),
    "nmce": Protocol(_sgd(0.1, 5e-5, schedule="constant"), 100, 128),
}


class Probe(NamedTuple):
    lr: float
    last: float  # accuracy after the last epoch: the one to report
    best: float  # in the best epoch, chosen on the test images: for papers that report this


def probe(
    train: Features | Callable[[], Features],
    tests: Features,
    protocol: Protocol,
    rates: Sequence[float] = (),
    seed: int = 0,
    advance: Callable[[int], None] = lambda epochs: None,
) -> list[Probe]:
    """Train one linear classifier per learning rate (by default the protocol's), in parallel.

    All see the same batches, in an order drawn from the seed, and are independent of each other. If
    `train` is a function, it is called for the features of each epoch.
    """
    rates = list(rates) or [protocol.optim.lr]
    curves = []
    for layers in _epochs(train, protocol, rates, seed, int(tests.labels.max()) + 1):
        curves.append([_accuracy(layer, tests) for layer in layers])
        advance(1)
    return [
        Probe(lr, accuracies[-1], max(accuracies))
        for lr, accuracies in zip(rates, zip(*curves, strict=True), strict=True)
    ]


def accuracies(
    train: Features,
    tests: Mapping[str, Features],
    protocol: Protocol,
    seed: int = 0,
    advance: Callable[[int], None] = lambda epochs: None,
) -> dict[str, float]:
    """Train one classifier with the protocol; return its accuracy on each of several test sets."""
    classes = max(int(features.labels.max()) for features in tests.values()) + 1
    for layers in _epochs(train, protocol, [protocol.optim.lr], seed, classes):
        (layer,) = layers
        advance(1)
    return {name: _accuracy(layer, features) for name, features in tests.items()}


def _epochs(
    train: Features | Callable[[], Features],
    protocol: Protocol,
    rates: Sequence[float],
    seed: int,
    classes: int,
) -> Iterator[nn.ModuleList]:
    """Yield the classifiers after each epoch, one per rate, with at least so many classes."""
    features = train() if callable(train) else train
    classes = max(int(features.labels.max()) + 1, classes)
    layers = _layers(features.rows.shape[1], classes, len(rates), seed).to(features.rows.device)
    optimiser = torch.optim.SGD(
        [{"params": layer.parameters(), "lr": 0.0} for layer in layers],
        momentum=protocol.optim.momentum,
        weight_decay=protocol.optim.weight_decay,
    )
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(protocol.epochs):
        if callable(train) and epoch:
            features = train()
        order = torch.randperm(len(features.rows), generator=generator).to(features.rows.device)
        _train_epoch(layers, optimiser, features, order, protocol, rates, epoch)
        yield layers


def _layers(width: int, classes: int, count: int, seed: int) -> nn.ModuleList:
    """Build classifiers with equal initial weights: MoCo's, normal with std 0.01, zero bias."""
    layer = nn.Linear(width, classes)
    with torch.no_grad():
        layer.weight.normal_(0, 0.01, generator=torch.Generator().manual_seed(seed))
        layer.bias.zero_()
    return nn.ModuleList(copy.deepcopy(layer) for _ in range(count))


def _train_epoch(
    layers: nn.ModuleList,
    optimiser: torch.optim.Optimizer,
    train: Features,
    order: torch.Tensor,
    protocol: Protocol,
    rates: Sequence[float],
    epoch: int,
) -> None:
    batches = order.split(protocol.batch)
    steps = len(batches) * protocol.epochs
    for index, batch in enumerate(batches):
        step = epoch * len(batches) + index
        lr = schedules.rates_at(protocol.optim, 256, step, steps, len(batches)).lr
        factor = lr / protocol.optim.lr
        for group, lr in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = lr * factor
        rows, labels = train.rows[batch], train.labels[batch]
        optimiser.zero_grad()
        torch.stack([cross_entropy(layer(rows), labels) for layer in layers]).sum().backward()
        optimiser.step()


@torch.no_grad()
def _accuracy(layer: nn.Module, tests: Features) -> float:
    correct = [
        (layer(rows).argmax(1) == labels).sum()
        for rows, labels in zip(tests.rows.split(8192), tests.labels.split(8192), strict=True)
    ]
    return (torch.stack(correct).sum() / len(tests.rows)).item()
