"""Scores of a network fine-tuned on some labels, each computed once."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from patchmill.loaders.common.settings import to_plain
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.subset import Subset
from patchmill.training import data
from patchmill.training.evaluation import trained_run
from patchmill.training.evaluation.finetune import train
from patchmill.training.evaluation.finetune.network import Classifier
from patchmill.training.evaluation.finetune.protocols import Protocol
from patchmill.training.evaluation.finetune.subsets import Few
from patchmill.training.evaluation.scores import cached
from patchmill.training.evaluation.trained_run import TrainedRun
from patchmill.training.nets.drop_path import set_drop_path
from patchmill.training.runtime.state import seed_generators

FOLDER = "finetune"  # in the run's folder
FILE = "scores.json"


class Task(NamedTuple):
    """Everything that fine-tuning on some labels depends on, except the network and the seed."""

    run: TrainedRun
    source: Source
    few: list[Few]  # for each seed
    recipe: Recipe
    protocol: Protocol
    variant: str


def by_seed(task: Task, seeds: list[int], weights: str | None) -> list[dict[str, float]]:
    """Return each seed's scores; from scratch if `weights`, the weights' hash, is None."""
    path = task.run.folder / FOLDER / FILE
    return [
        cached(path, _key(task, few, seed, weights), partial(_score, task, few, seed, weights))
        for few, seed in zip(task.few, seeds, strict=True)
    ]


def _score(task: Task, few: Few, seed: int, weights: str | None) -> dict[str, float]:
    run = task.run
    title = f"{'from scratch' if weights is None else 'fine-tuned'} on {few.title}, seed {seed}"
    network = _network(task, seed, scratch=weights is None)
    images = Subset(task.source, few.ids)
    losses = train.fit(network, images, run, task.recipe, task.protocol, seed, title)
    scores = train.test(network, run, f"tests: {title}")
    return {**scores, "first_loss": losses.first, "final_loss": losses.last}


def _network(task: Task, seed: int, scratch: bool) -> Classifier:
    """Build the method's network; the seed draws the head, and all weights from scratch."""
    run, world = task.run, task.run.world
    if scratch:
        method = trained_run.untrained(replace(run.config, seed=seed), world)
    else:
        method = copy.deepcopy(run.method)
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        seed_generators(seed)  # all ranks start with the same weights
        backbone = method.finetune_network(task.variant)
        classes = data.source_classes(task.source)
        network = Classifier(backbone, classes or 0, task.protocol.head)
    set_drop_path(network.backbone, task.protocol.drop_path)
    network.to(world.device)
    if data.channels_last(run.config, world):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _key(task: Task, few: Few, seed: int, weights: str | None) -> str:
    """Return a key of scores.json with everything that a score depends on."""
    config, world = task.run.config, task.run.world
    return json.dumps(
        [
            weights or "from scratch",
            seed,
            Subset(task.source, few.ids).fingerprint,
            to_plain(task.protocol),
            task.variant,
            data.normalised_as_trained(task.recipe, config).fingerprint(),
            config.data.test,
            config.evaluate.view,
            str(task.run.amp),
            world.size,
        ]
    )


def hash_weights(run: TrainedRun) -> str:
    """Hash the trained weights."""
    digest = hashlib.sha256()
    for name, values in run.method.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values.cpu().float().numpy()).tobytes())
    return digest.hexdigest()[:16]
