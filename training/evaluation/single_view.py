"""evaluate=knn and evaluate=linear: kNN and linear probes on one view of each image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.recipe import Crop, Recipe
from patchmill.training import data
from patchmill.training.config.recipes import evaluation_recipe
from patchmill.training.data import Split
from patchmill.training.evaluation import knn, linear, trained_run
from patchmill.training.evaluation.features import Features, count_images, extract
from patchmill.training.evaluation.result import EvaluationResult, percent
from patchmill.training.evaluation.scores import cached
from patchmill.training.evaluation.settings import KNN, Linear, Space
from patchmill.training.evaluation.trained_run import TrainedRun
from patchmill.training.nets import dense

UNTRAINED = "untrained.json"

# Protocol of each method's paper; for other methods VICReg's, whose learning rate suits features
# of any norm.
PROTOCOLS = {
    "moco": "moco",
    "dilo": "moco",
    "emp_ssl": "emp_ssl",
    "tcr": "nmce",
    "dino": "dino",
}


def evaluate_knn(run: TrainedRun, settings: KNN) -> EvaluationResult:
    evaluate = run.config.evaluate
    space = evaluate.space if settings.space == "auto" else settings.space
    counts: dict[str, int] = {}
    score = partial(_knn, run, counts=counts)
    trained = score(run.network(space), "the trained network")
    untrained = cached(
        run.folder / UNTRAINED,
        _conditions(run, space),
        lambda: score(
            trained_run.network(trained_run.untrained(run.config, run.world), space),
            "the untrained network",
        ),
    )
    conditions = {
        "k": evaluate.k,
        "temperature": evaluate.temperature,
        "space": space,
        "patches": 1,
    }
    return EvaluationResult(
        "knn",
        f"kNN in {space}, k={evaluate.k}, T={evaluate.temperature:g}, one view of each "
        f"image ({evaluate.view}), {counts['bank']:,} in the bank, {counts['tests']:,} tested",
        ["network", "kNN"],
        [["trained", percent(trained)], ["untrained", percent(untrained)]],
        {"knn": trained, "untrained": untrained, "view": evaluate.view, **conditions, **counts},
        {f"knn_{space}": trained, f"knn_{space}_untrained": untrained},
    )


def evaluate_linear(run: TrainedRun, settings: Linear) -> EvaluationResult:
    name = resolve_protocol(run, settings.protocol)
    network = run.network(settings.space)
    tokens = name == "dino" and settings.space == "h" and dense.has_class_token(run.backbone)
    if tokens:
        network = dense.LastClassTokens(run.backbone)
    if settings.augment and settings.images:
        raise MillError("augment=true trains on crops of all images: omit images=")
    augmented = settings.augment and random_crops(run, network)
    train = augmented or features(run, network, "train", settings.images)
    tests = features(run, network, "test")
    protocol = linear.PROTOCOLS[name]
    with track("linear probe", protocol.epochs, unit="epochs") as advance:
        probes = linear.probe(train, tests, protocol, settings.rates, settings.seed, advance)
    best = max(probes, key=lambda probe: probe.last)
    return EvaluationResult(
        "linear",
        f"linear probe with {name}'s protocol on "
        f"{'the class tokens of the last four blocks' if tokens else settings.space}, trained on "
        f"{'new crops in each epoch' if augmented else 'cached features of one view'}, tested on "
        f"one view ({run.config.evaluate.view}) of {len(tests.rows):,} images",
        ["learning rate", "last epoch", "best epoch, chosen on the tests"],
        [[f"{probe.lr:g}", percent(probe.last), percent(probe.best)] for probe in probes],
        {
            "protocol": name,
            "space": settings.space,
            "patches": 1,
            "augment": settings.augment,
            "probes": [probe._asdict() for probe in probes],
        },
        {f"linear_{settings.space}": best.last},
    )


def resolve_protocol(run: TrainedRun, name: str) -> str:
    """Return the name of a probe's protocol, with auto resolved to the method's."""
    return PROTOCOLS.get(run.config.method_name, "vicreg") if name == "auto" else name


def features(
    run: TrainedRun, network: nn.Module, split: Split, limit: int | None = None, title: str = ""
) -> Features:
    """Extract features of the evaluation view of each image."""
    loader = data.open_evaluation(run.config, run.world, split)
    title = title or f"{split}ing images"
    with track(title, count_images(loader, limit), unit="images") as advance:
        return extract(network, loader, limit, run.amp, advance)


def random_crops(run: TrainedRun, network: nn.Module) -> Callable[[], Features]:
    """Return a function that extracts features of all training images, each time from new crops."""
    (view, *_) = evaluation_recipe(run.config).views
    recipe = Recipe((replace(view, crop=Crop(), flip=0.5),))
    loader = data.open_evaluation(run.config, run.world, "train", recipe)
    return lambda: extract(network, loader, None, run.amp)


def _knn(run: TrainedRun, network: nn.Module, title: str, counts: dict[str, int]) -> float:
    evaluate = run.config.evaluate
    bank = features(run, network, "train", evaluate.images, f"bank of {title}")
    tests = features(run, network, "test", None, f"tests of {title}")
    counts |= {"bank": len(bank.rows), "tests": len(tests.rows)}
    return knn.accuracy(bank, tests, evaluate.k, evaluate.temperature)


def _conditions(run: TrainedRun, space: Space) -> str:
    """Return a key of untrained.json with everything that the untrained accuracy depends on."""
    evaluate, splits = run.config.evaluate, run.config.data
    bank = splits.bank or splits.train
    return json.dumps(
        [
            space,
            evaluate.k,
            evaluate.temperature,
            evaluate.view,
            evaluate.images,
            bank,
            splits.test,
        ]
    )
