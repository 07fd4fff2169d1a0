"""What one view of each image tells: kNN beside an untrained network's, and linear probes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.files import write_atomic
from patchmill.loaders.common.progress import track
from patchmill.loaders.recipe import Crop, Recipe
from patchmill.training import data
from patchmill.training.config.recipes import evaluation_recipe
from patchmill.training.config.settings import Count, Positive, Whole
from patchmill.training.data import Split
from patchmill.training.evaluation import knn, linear, trained
from patchmill.training.evaluation.features import Features, extract, images_seen
from patchmill.training.evaluation.findings import Findings, percent
from patchmill.training.evaluation.trained import Space, Trained
from patchmill.training.ranks import distributed

UNTRAINED = "untrained.json"

# Which probe goes with a method that has none of its own paper's: VICReg's, whose rate suits
# features of any length.
PROTOCOLS = {"moco": "moco", "dilo": "moco", "emp_ssl": "emp_ssl", "tcr": "nmce"}


@dataclass
class KNN:
    space: Space = "h"  # the backbone's h, or the projector's z


@dataclass
class Linear:
    protocol: Literal["auto", "moco", "vicreg", "emp_ssl", "nmce"] = "auto"  # auto: the method's
    rates: list[Positive] = field(default_factory=list)  # learning rates, instead of its own
    space: Space = "h"  # the backbone's h, or the projector's z
    images: Count | None = None  # at most so many of the training images
    augment: bool = False  # other crops in each epoch, for which the network runs anew each time
    seed: Whole = 0  # of the classifier and of the order of images


def evaluate_knn(run: Trained, settings: KNN) -> Findings:
    its = run.config.evaluate
    counts: dict[str, int] = {}
    score = partial(_knn, run, counts=counts)
    found = score(run.network(settings.space), "the trained network")
    begun = _once(
        run.folder / UNTRAINED,
        _conditions(run, settings.space),
        lambda: score(
            trained.network(trained.untrained(run.config, run.world), settings.space),
            "the untrained network",
        ),
    )
    told = {"k": its.k, "temperature": its.temperature, "space": settings.space, "patches": 1}
    return Findings(
        "knn",
        f"kNN in {settings.space}, k={its.k}, T={its.temperature:g}, one view of each image "
        f"({its.view}), {counts['bank']:,} in the bank, {counts['tests']:,} tested",
        ["network", "kNN"],
        [["trained", percent(found)], ["untrained", percent(begun)]],
        {"knn": found, "untrained": begun, "view": its.view, **told, **counts},
        {f"knn_{settings.space}": found, f"knn_{settings.space}_untrained": begun},
    )


def evaluate_linear(run: Trained, settings: Linear) -> Findings:
    name = protocol_of(run, settings.protocol)
    network = run.network(settings.space)
    if settings.augment and settings.images:
        raise MillError("augment=true trains on crops of all images: leave out images=")
    cropped = settings.augment and crops(run, network)
    train = cropped or features(run, network, "train", settings.images)
    tests = features(run, network, "test")
    protocol = linear.PROTOCOLS[name]
    with track("linear probe", protocol.epochs, unit="epochs") as advance:
        found = linear.probe(train, tests, protocol, settings.rates, settings.seed, advance)
    best = max(found, key=lambda probe: probe.last)
    probes = [probe._asdict() for probe in found]
    return Findings(
        "linear",
        f"linear probe of {name} on {settings.space}, trained on "
        f"{'other crops in each epoch' if cropped else 'cached features of one view'}, tested on "
        f"one view ({run.config.evaluate.view}) of {len(tests.rows):,} images",
        ["learning rate", "last epoch", "best epoch, chosen on the tests"],
        [[f"{it.lr:g}", percent(it.last), percent(it.best)] for it in found],
        {
            "protocol": name,
            "space": settings.space,
            "patches": 1,
            "augment": settings.augment,
            "probes": probes,
        },
        {f"linear_{settings.space}": best.last},
    )


def protocol_of(run: Trained, name: str) -> str:
    return PROTOCOLS.get(run.config.method_name, "vicreg") if name == "auto" else name


def features(
    run: Trained, network: nn.Module, split: Split, most: int | None = None, what: str = ""
) -> Features:
    """Of the one view of each image that is evaluated."""
    loader = data.open_evaluation(run.config, run.world, split)
    what = what or f"{split}ing images"
    with track(what, images_seen(loader, most), unit="images") as advance:
        return extract(network, loader, most, run.amp, advance)


def crops(run: Trained, network: nn.Module) -> Callable[[], Features]:
    """Makes features of random resized crops of all training images, of others each time."""
    (seen, *_) = evaluation_recipe(run.config).views
    recipe = Recipe((replace(seen, crop=Crop(), flip=0.5),))
    loader = data.open_evaluation(run.config, run.world, "train", recipe)
    return lambda: extract(network, loader, None, run.amp)


def _knn(run: Trained, network: nn.Module, what: str, counts: dict[str, int]) -> float:
    its = run.config.evaluate
    bank = features(run, network, "train", its.images, f"bank of {what}")
    tests = features(run, network, "test", None, f"tests of {what}")
    counts |= {"bank": len(bank.rows), "tests": len(tests.rows)}
    return knn.accuracy(bank, tests, its.k, its.temperature)


def _conditions(run: Trained, space: Space) -> str:
    its, of = run.config.evaluate, run.config.data
    bank = of.bank or of.train
    return json.dumps([space, its.k, its.temperature, its.view, its.images, bank, of.test])


def _once(path: Path, key: str, make: Callable[[], float]) -> float:
    """What `make` gives, kept in a file: an untrained network stays what it is."""
    known = distributed.objects(_kept(path))[0]  # rank 0's, so that all do the same
    if key not in known:
        known[key] = make()
        if distributed.current().rank == 0:
            write_atomic(path, json.dumps(known, indent=1) + "\n", durable=True)
    return known[key]


def _kept(path: Path) -> dict[str, float]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
