"""evaluate=detect: Faster or Mask R-CNN on the backbone, compared with an untrained backbone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.settings import to_plain
from patchmill.loaders.common.threads import available_cores
from patchmill.loaders.files.writing import atomic_path, output_errors
from patchmill.training import data
from patchmill.training.config.recipes import training_recipe
from patchmill.training.evaluation import trained_run
from patchmill.training.evaluation.detect import (
    annotated,
    batches,
    detector,
    picture,
    protocols,
    scores,
    train,
)
from patchmill.training.evaluation.detect.annotated import AnnotatedImages
from patchmill.training.evaluation.detect.protocols import Protocol
from patchmill.training.evaluation.detect.pyramid import Pyramid
from patchmill.training.evaluation.detect.scores import Scores
from patchmill.training.evaluation.detect.settings import Settings
from patchmill.training.evaluation.detect.train import Detections, Machine
from patchmill.training.evaluation.result import EvaluationResult, percent
from patchmill.training.evaluation.trained_run import TrainedRun
from patchmill.training.methods import Method
from patchmill.training.nets import dense
from patchmill.training.nets.backbones import Backbone
from patchmill.training.nets.drop_path import set_drop_path

TEST_BATCH = 4  # images: a Mask R-CNN's masks have the images' full size


@dataclass(frozen=True)
class Task:
    """Everything that is the same for all backbones."""

    run: TrainedRun
    settings: Settings
    train: AnnotatedImages
    test: AnnotatedImages
    masked: bool  # a Mask R-CNN
    name: str  # of the protocol
    protocol: Protocol


def evaluate(run: TrainedRun, settings: Settings) -> EvaluationResult:
    scores.require_pycocotools()
    if run.world.size > 1:
        raise MillError("evaluate=detect runs on one rank: start it without torchrun")
    task = _prepare(run, settings)
    objects = scores.truth(task.test, task.train.classes)
    networks: dict[str, dict[str, dict[str, float]]] = {}
    losses: dict[str, dict[str, float]] = {}
    detections: dict[str, list[Detections]] = {}
    for name, method in _methods(task):
        curve, detections[name] = _train_and_test(task, name, method)
        networks[name] = {"box": scores.score(objects, detections[name], "bbox")._asdict()}
        if task.masked:
            networks[name]["mask"] = scores.score(objects, detections[name], "segm")._asdict()
        losses[name] = _ends(curve)
    drawn = _draw(task, detections)
    return _result(task, networks, {"loss": losses, "picture": drawn})


def _prepare(run: TrainedRun, settings: Settings) -> Task:
    images, tests = annotated.open_pair(run.config, settings)
    masked = _masked(settings, images, tests)
    name = choose_protocol(settings, images, run.backbone)
    protocol = protocols.resolve(name, settings, len(images))
    return Task(run, settings, images, tests, masked, name, protocol)


def choose_protocol(settings: Settings, images: AnnotatedImages, backbone: Backbone) -> str:
    """Return the name of the protocol, with auto resolved by the data and the backbone."""
    if settings.protocol != "auto":
        return settings.protocol
    if annotated.is_scenes(images.name):
        return "demo"
    if not images.name.endswith(".json"):
        return "moco_voc"
    return "coco" if hasattr(dense.trunk(backbone), "blocks") else "moco_coco"


def _masked(settings: Settings, images: AnnotatedImages, tests: AnnotatedImages) -> bool:
    """True for a Mask R-CNN: if the user asks for one, or if all objects have masks."""
    without = [data.name for data in (images, tests) if not data.masked]
    if settings.head == "mask" and without:
        raise MillError(
            f"head=mask needs a mask of each object, but {without[0]} has objects without: use "
            "head=faster"
        )
    return settings.head == "mask" or (settings.head == "auto" and not without)


def _methods(task: Task) -> Iterator[tuple[str, Method]]:
    """Yield the methods whose backbones are compared, by name."""
    yield "trained", task.run.method
    if task.settings.untrained:
        yield "untrained", trained_run.untrained(task.run.config, task.run.world)


def _train_and_test(task: Task, name: str, method: Method) -> tuple[list[float], list[Detections]]:
    """Train and run a detector; return its losses and its detections."""
    run, protocol, seed = task.run, task.protocol, task.settings.seed
    machine = Machine(run.world.device, run.amp)
    threads = run.config.train.threads(available_cores())
    with train.seeded(seed, machine.device):
        model = _detector(task, method)
        images = protocol.total * protocol.batch
        feed = batches.training(
            task.train, protocol.batch, protocol.total, seed, task.masked, threads
        )
        with track(f"training on the {name} backbone", images, unit="images") as advance:
            curve = train.train(model, feed, protocol, machine, advance)
        feed = batches.testing(task.test, TEST_BATCH, threads)
        with track(f"testing on the {name} backbone", len(task.test), unit="images") as advance:
            return curve, train.detect(model, feed, protocol.test_side, machine, advance)


def _detector(task: Task, method: Method) -> GeneralizedRCNN:
    """Build a detector on a copy of the method's backbone, with the protocol's stochastic depth."""
    config, protocol = task.run.config, task.protocol
    (view, *_) = training_recipe(config).views
    backbone = copy.deepcopy(method.finetune_network(config.evaluate.encoder))
    backbone.requires_grad_(not task.settings.freeze)
    set_drop_path(backbone, protocol.drop_path)
    pyramid = Pyramid(backbone, protocol.channels, protocol.norm)
    classes = len(task.train.classes)
    model = detector.build(pyramid, classes, task.masked, protocol, view.mean, view.std)
    model.to(task.run.world.device)
    if data.channels_last(config, task.run.world):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _ends(curve: list[float]) -> dict[str, float]:
    """Return the mean loss over the first and the last tenth of training."""
    tenth = max(len(curve) // 10, 1)
    return {"first": float(np.mean(curve[:tenth])), "last": float(np.mean(curve[-tenth:]))}


def _draw(task: Task, detections: Mapping[str, Sequence[Detections]]) -> str | None:
    """Draw the picture; return the file name."""
    if not task.settings.picture:
        return None
    path = task.run.folder / picture.FILE
    sheet = picture.draw(task.test, task.train.classes, detections, task.settings.picture)
    # The temporary name ends in .png: PIL infers the format from it.
    with output_errors(path), atomic_path(path, f".part.{path.name}") as partial:
        sheet.save(partial, optimize=True)
    return path.name


# ------------------------------------------------------------------------------------------ results


def _result(
    task: Task, networks: dict[str, dict[str, dict[str, float]]], more: dict[str, Any]
) -> EvaluationResult:
    head = "Mask R-CNN" if task.masked else "Faster R-CNN"
    frozen = " on a frozen backbone" if task.settings.freeze else ""
    train, test = _describe(task.train), _describe(task.test)
    figures = [
        (kind, metric)
        for kind in ("box", "mask")
        if kind in networks["trained"]
        for metric in Scores._fields
    ]
    return EvaluationResult(
        "detect",
        f"{head}{frozen} with the protocol {task.name}, {task.protocol.total:,} iterations of "
        f"{task.protocol.batch} images; average precision by COCOeval on {test['images']:,} images "
        f"with {test['objects']:,} objects",
        ["backbone", *(f"{kind} {metric.upper()}" for kind, metric in figures)],
        [
            [name, *(percent(precisions[kind][metric]) for kind, metric in figures)]
            for name, precisions in networks.items()
        ],
        {
            "protocol": task.name,
            "head": "mask" if task.masked else "faster",
            "freeze": task.settings.freeze,
            "seed": task.settings.seed,
            "networks": networks,
            "train": train,
            "test": test,
            "budget": _budget(task.protocol),
            **more,
        },
        {
            f"detect_{name}_{kind}_{metric}": precisions[kind][metric]
            for name, precisions in networks.items()
            for kind, metric in figures
        },
    )


def _describe(images: AnnotatedImages) -> dict[str, Any]:
    objects = sum(len(images.instances(index)) for index in range(len(images)))
    return {
        "data": images.name,
        "images": len(images),
        "objects": objects,
        "dropped": images.dropped,
    }


def _budget(protocol: Protocol) -> dict[str, Any]:
    optim, plain = protocol.optim, to_plain(protocol)
    del plain["optim"]
    return {
        "optimiser": optim.name,
        "lr": optim.lr,
        "weight_decay": optim.weight_decay,
        "grad_clip": optim.grad_clip,
        **plain,
    }
