"""Metrics of a network from one extraction of features: accuracies, and signs of collapse.

Training computes them with every kNN evaluation, evaluate=online for a finished run.

    knn            kNN accuracy, in evaluate.space
    linear_online  accuracy of a linear classifier on h, fitted in closed form; for probes with
                   the papers' protocols, see evaluate=linear
    rankme_h, _z   RankMe of the bank's features, in each available space
    spread_h, _z   spread of their directions
    collapsed_h, _z  1 if these show a collapse, else 0
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import one_hot

from patchmill.training import data, data_notes
from patchmill.training.evaluation import knn, spectrum, trained_run
from patchmill.training.evaluation.features import Features, extract
from patchmill.training.evaluation.result import EvaluationResult, percent
from patchmill.training.evaluation.settings import Online
from patchmill.training.evaluation.single_view import features
from patchmill.training.runtime import collapse

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config, Evaluate
    from patchmill.training.evaluation.trained_run import TrainedRun
    from patchmill.training.methods import Method
    from patchmill.training.ranks.distributed import World

RIDGE = 0.1  # penalty on the weights, for standardised features; ours
CHUNK = 4096  # rows at a time
AFTER, BEFORE = "after training", "before training"


def measure(method: Method, config: Config, world: World) -> dict[str, float]:
    """Compute metrics during training, on `data.test` with a training bank; the same on all ranks.

    Networks, generators and the training loader are left unchanged.
    """
    evaluate = config.evaluate
    trained_run.network(method, evaluate.space, evaluate.encoder)  # raises for a missing space
    backbone, projector = method.networks(evaluate.encoder)
    labelled = data_notes.labelled(config)
    images = data.open_evaluation(config, world, "train", labelled=labelled)
    bank = extract(backbone, images, evaluate.images)
    if not labelled:
        return collapse_figures(bank.rows, projector)
    tests = extract(backbone, data.open_evaluation(config, world, "test"))
    return figures(bank, tests, projector, evaluate)


def figures(
    bank: Features, tests: Features, projector: nn.Module | None, evaluate: Evaluate
) -> dict[str, float]:
    """Compute metrics from features in h and, with a projector, in z; only the finite ones."""
    knn_bank, knn_tests = bank, tests
    if projector is not None and evaluate.space == "z":
        knn_bank = bank._replace(rows=project(projector, bank.rows))
        knn_tests = tests._replace(rows=project(projector, tests.rows))
    values = {
        "knn": knn.accuracy(knn_bank, knn_tests, evaluate.k, evaluate.temperature),
        "linear_online": linear_accuracy(bank, tests),
        **collapse_figures(bank.rows, projector),
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def collapse_figures(rows_of_h: torch.Tensor, projector: nn.Module | None) -> dict[str, float]:
    """Compute collapse metrics in h and, with a projector, in z, which need no labels."""
    spaces = {"h": spectrum.subsample(rows_of_h)}
    if projector is not None:
        spaces["z"] = project(projector, spaces["h"])
    values: dict[str, float] = {}
    for space, rows in spaces.items():
        rows = spectrum.subsample(rows)  # fewer of z than of h if z is longer
        rankme, spread = spectrum.rankme(rows), spectrum.spread(rows)
        collapsed = collapse.has_collapsed(rankme, spread, min(rows.shape))
        values |= {
            f"rankme_{space}": rankme,
            f"spread_{space}": spread,
            f"collapsed_{space}": int(collapsed),
        }
    return {name: value for name, value in values.items() if math.isfinite(value)}


@torch.no_grad()
def project(projector: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Project rows of h to z, in evaluation mode; modes are restored afterwards."""
    modes = {module: module.training for module in projector.modules()}
    projector.eval()
    try:
        return torch.cat([projector(part).float() for part in rows.split(CHUNK)])
    finally:
        for module, mode in modes.items():
            module.training = mode


def linear_accuracy(bank: Features, tests: Features) -> float:
    """Return the accuracy on `tests` of a classifier fitted to the bank in closed form."""
    return linear_accuracies(bank, {"": tests})[""]


@torch.no_grad()
def linear_accuracies(bank: Features, tests: Mapping[str, Features]) -> dict[str, float]:
    """Return the accuracy, by test set, of ridge regression from standardised features to one-hot.

    Deterministic. Takes about N d (d + classes) multiplications and the solution of d linear
    equations.
    """
    mean, std = bank.rows.mean(0), bank.rows.std(0, correction=0)
    std = torch.where(std > 1e-5 * std.mean(), std, torch.ones_like(std))  # 1 for constant features
    classes = max(int(features.labels.max()) for features in (bank, *tests.values())) + 1
    frequencies = torch.bincount(bank.labels, minlength=classes) / len(bank.rows)
    width = bank.rows.shape[1]
    gram, target = bank.rows.new_zeros(width, width), bank.rows.new_zeros(width, classes)
    for rows, labels in _chunks(bank):
        x = (rows - mean) / std
        gram += x.T @ x
        target += x.T @ (one_hot(labels, classes) - frequencies)
    gram.diagonal().add_(RIDGE * len(bank.rows))
    weights = torch.linalg.solve(gram, target)

    def accuracy(features: Features) -> float:
        correct = [
            (((rows - mean) / std @ weights + frequencies).argmax(1) == labels).sum()
            for rows, labels in _chunks(features)
        ]
        return (torch.stack(correct).sum() / len(features.rows)).item()

    return {name: accuracy(features) for name, features in tests.items()}


def _chunks(features: Features) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Iterate over rows and labels, CHUNK at a time."""
    return zip(features.rows.split(CHUNK), features.labels.split(CHUNK), strict=True)


def text(values: Mapping[str, float]) -> str:
    """`kNN 51.2%, linear 60.1%, RankMe 45.1 in h and 30.2 in z, spread 0.61 in h and 0.80 in z`."""
    parts = [f"kNN {values['knn']:.1%}"] if "knn" in values else []
    if "linear_online" in values:
        parts.append(f"linear {values['linear_online']:.1%}")
    for name, key, form in (("RankMe", "rankme", "{:.1f}"), ("spread", "spread", "{:.2f}")):
        spaces = [space for space in ("h", "z") if f"{key}_{space}" in values]
        measured = [f"{form.format(values[f'{key}_{space}'])} in {space}" for space in spaces]
        if measured:
            parts.append(f"{name} {' and '.join(measured)}")
    return "; ".join(filter(None, [", ".join(parts), collapse.sentence(values)]))


# ---------------------------------------------------------------------------------- evaluate=online


def evaluate_online(run: TrainedRun, settings: Online) -> EvaluationResult:
    """Compare a finished run's metrics with those of its networks before training."""
    evaluate = run.config.evaluate
    networks = {AFTER: run.method, BEFORE: trained_run.untrained(run.config, run.world)}
    counts: dict[str, int] = {}
    measured = {when: _measure(run, method, when, counts) for when, method in networks.items()}
    conditions = {"space": evaluate.space, "encoder": evaluate.encoder, "view": evaluate.view}
    trained = measured[AFTER]
    return EvaluationResult(
        "online",
        f"kNN in {evaluate.space}, k={evaluate.k}, T={evaluate.temperature:g}; one view of each "
        f"image ({evaluate.view}), {counts['bank']:,} in the bank, {counts['tests']:,} tested",
        ["", *measured],
        [
            [_label(name), *(_cell(name, values.get(name)) for values in measured.values())]
            for name in trained
        ],
        {"figures": measured, **conditions, **counts},
        {f"knn_{evaluate.space}" if name == "knn" else name: trained[name] for name in trained},
    )


def _measure(
    run: TrainedRun, method: Method, when: str, counts: dict[str, int]
) -> dict[str, float]:
    evaluate = run.config.evaluate
    trained_run.network(method, evaluate.space, evaluate.encoder)
    backbone, projector = method.networks(evaluate.encoder)
    bank = features(run, backbone, "train", evaluate.images, f"bank {when}")
    tests = features(run, backbone, "test", None, f"tests {when}")
    counts |= {"bank": len(bank.rows), "tests": len(tests.rows)}
    return figures(bank, tests, projector, evaluate)


def _label(name: str) -> str:
    kind, _, space = name.partition("_")
    names = {"knn": "kNN", "linear": "linear classifier on h", "rankme": "RankMe"}
    return names.get(kind, kind) + (f" in {space}" if space in ("h", "z") else "")


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.startswith("collapsed"):
        return "yes" if value else "no"
    if name.startswith("rankme"):
        return f"{value:.1f}"
    return f"{value:.2f}" if name.startswith("spread") else percent(value)
