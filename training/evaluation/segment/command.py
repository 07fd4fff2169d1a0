"""evaluate=segment: semantic segmentation, compared with an untrained backbone.

Each backbone gets the same head, with the same initial weights, and the same training views.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.threads import available_cores
from patchmill.loaders.files.writing import atomic_path, output_errors
from patchmill.training.config.recipes import training_recipe
from patchmill.training.evaluation import trained_run
from patchmill.training.evaluation.result import EvaluationResult, percent
from patchmill.training.evaluation.segment import picture, testing, token_knn
from patchmill.training.evaluation.segment.batches import training_batches
from patchmill.training.evaluation.segment.budget import Budget
from patchmill.training.evaluation.segment.heads import Linear, SemanticFPN
from patchmill.training.evaluation.segment.labelled import Splits, open_splits
from patchmill.training.evaluation.segment.pixels import Pixels
from patchmill.training.evaluation.segment.segmenter import Segmenter
from patchmill.training.evaluation.segment.settings import Settings, resolve
from patchmill.training.evaluation.segment.testing import Predict, Tested
from patchmill.training.evaluation.segment.training import train
from patchmill.training.evaluation.trained_run import TrainedRun
from patchmill.training.nets import dense
from patchmill.training.nets.backbones import Backbone
from patchmill.training.nets.dense import Layout
from patchmill.training.runtime.state import seed_generators

METRICS = ("aAcc", "mIoU", "mAcc")
TITLES = {"fpn": "Semantic FPN", "linear": "a linear probe", "knn": "kNN of tokens"}
LAYOUT_SIDE = 64  # minimum, in pixels: smaller images leave some strides unknown


@dataclass(frozen=True)
class Task:
    """Everything that is the same for all backbones."""

    run: TrainedRun
    settings: Settings
    budget: Budget
    splits: Splits
    layout: Layout
    pixels: Pixels
    threads: int


def evaluate(run: TrainedRun, settings: Settings) -> EvaluationResult:
    if run.world.size > 1:
        raise MillError("evaluate=segment runs on one rank: start it without torchrun")
    task = _prepare(run, settings)
    shown = picture.choose(task.splits.test)
    tested = {name: _score(task, name, network, shown) for name, network in _backbones(task)}
    path = run.folder / picture.FILE
    sheet = picture.draw(task.splits.test, {name: it.predictions for name, it in tested.items()})
    with output_errors(path), atomic_path(path, f".part.{path.name}") as partial:
        sheet.save(partial, optimize=True)
    return _result(task, tested)


def _prepare(run: TrainedRun, settings: Settings) -> Task:
    budget, data = resolve(settings, run.config), run.config.data
    side = training_recipe(run.config).views[0].size
    layout = dense.layout(run.backbone, side * -(-LAYOUT_SIDE // side))
    multiple = max(layout.strides)
    if min(budget.size) < multiple:
        raise MillError(
            f"size={min(budget.size)} is less than the stride of the backbone's last map, "
            f"{multiple} pixels: use a larger size"
        )
    splits = open_splits(
        settings.root, data.train, data.test, settings.reduce_zero_label, settings.classes
    )
    pixels = Pixels.of(run, multiple)
    threads = run.config.train.threads(available_cores())
    return Task(run, settings, budget, splits, layout, pixels, threads)


def _backbones(task: Task) -> Iterator[tuple[str, Backbone]]:
    run = task.run
    yield "trained", run.backbone
    if task.settings.untrained:
        fresh = trained_run.untrained(run.config, run.world)
        yield "untrained", fresh.encoder(run.config.evaluate.encoder)


def _score(task: Task, name: str, backbone: Backbone, shown: list[int]) -> Tested:
    predict = (_knn if task.settings.head == "knn" else _trained)(task, name, backbone)
    return testing.score(
        predict,
        task.splits.test,
        task.budget.size,
        task.pixels,
        task.threads,
        shown,
        f"{name}: test images",
    )


def _knn(task: Task, name: str, backbone: Backbone) -> Predict:
    settings, evaluate = task.settings, task.run.config.evaluate
    network = copy.deepcopy(backbone).requires_grad_(False).eval()
    bank = token_knn.collect(
        network,
        task.splits.train,
        task.budget.size,
        task.pixels,
        settings.tokens,
        settings.seed,
        task.threads,
        f"{name}: bank of tokens",
    )
    classes = len(task.splits.train.classes)
    return token_knn.TokenKNN(network, bank, classes, evaluate.k, evaluate.temperature)


def _trained(task: Task, name: str, backbone: Backbone) -> Predict:
    """Train a head on a copy of the backbone; all random draws come from the seed."""
    settings, budget, device = task.settings, task.budget, task.pixels.device
    classes, channels = len(task.splits.train.classes), task.layout.channels
    linear = settings.head == "linear"
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_generators(settings.seed)
        head = (
            Linear(channels[-1], classes)
            if linear
            else SemanticFPN(channels, classes, budget.channels, budget.dropout)
        )
        segmenter = Segmenter(backbone, head, frozen=linear or settings.freeze).to(device)
        batches = training_batches(task.splits.train, budget, settings.seed, task.threads)
        train(segmenter, batches, budget, task.pixels, f"{name}: {TITLES[settings.head]}")
    return segmenter


# --------------------------------------------------------------------------------------- the result


def _result(task: Task, tested: dict[str, Tested]) -> EvaluationResult:
    settings, (train_set, test_set) = task.settings, task.splits
    figures = {
        name: {metric: getattr(it.scores, metric) for metric in METRICS}
        for name, it in tested.items()
    }
    frozen = settings.freeze or settings.head != "fpn"
    prefix = f"segment_{settings.head}" + ("_frozen" if settings.freeze else "")
    return EvaluationResult(
        "segment",
        f"segmentation with {TITLES[settings.head]} on a {'frozen' if frozen else 'trained'} "
        f"backbone: {_spent(task)}; {len(test_set.classes)} classes, {len(test_set):,} test images",
        ["backbone", *METRICS],
        [[name, *map(percent, scores.values())] for name, scores in figures.items()],
        {
            "head": settings.head,
            "frozen": frozen,
            "encoder": _encoder(task.run),
            "train": train_set.name,
            "test": test_set.name,
            "train_images": len(train_set),
            "test_images": len(test_set),
            "seed": settings.seed,
            **_conditions(task),
            "backbones": figures,
            "per_class": {
                label: {name: it.scores.iou[index] for name, it in tested.items()}
                for index, label in enumerate(test_set.classes)
            },
        },
        {
            f"{prefix}_{metric}" + ("" if name == "trained" else f"_{name}"): value
            for name, scores in figures.items()
            for metric, value in scores.items()
        },
    )


def _spent(task: Task) -> str:
    budget, (height, width) = task.budget, task.budget.size
    if task.settings.head == "knn":
        return f"at most {task.settings.tokens:,} tokens, short side {min(height, width)}"
    return (
        f"{budget.iterations:,} iterations of {budget.batch} views of {height} x {width}, "
        f"lr {budget.lr:g}"
    )


def _conditions(task: Task) -> dict[str, Any]:
    """Return the settings that apply to the head."""
    budget, evaluate = task.budget, task.run.config.evaluate
    if task.settings.head == "knn":
        return {
            "tokens": task.settings.tokens,
            "short_side": min(budget.size),
            "k": evaluate.k,
            "temperature": evaluate.temperature,
        }
    names = ["iterations", "batch", "size", "lr", "weight_decay", "warmup", "photometric"]
    names += ["channels", "dropout"] if task.settings.head == "fpn" else []
    values = {name: getattr(budget, name) for name in names}
    return values | {"warmup": round(budget.warmup * budget.iterations), "size": list(budget.size)}


def _encoder(run: TrainedRun) -> str:
    chosen = run.config.evaluate.encoder
    return run.method.evaluated if chosen == "auto" else chosen
