"""Fine-tune a classifier on a subset of the images, and test it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.loader import Loader
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources.subset import Subset
from patchmill.training import data
from patchmill.training.evaluation.features import count_images, extract_with
from patchmill.training.evaluation.finetune import augment
from patchmill.training.evaluation.finetune.network import Classifier
from patchmill.training.evaluation.finetune.protocols import Protocol
from patchmill.training.evaluation.trained_run import TrainedRun
from patchmill.training.methods.method import flatten_views
from patchmill.training.optim import layer_groups, optimizers, schedules
from patchmill.training.ranks import distributed, sharding
from patchmill.training.runtime.state import seed_generators

TOP = 5  # for top-5 accuracy


class Losses(NamedTuple):
    first: float  # mean of the first epoch
    last: float  # mean of the last


def fit(
    network: Classifier,
    images: Subset,
    run: TrainedRun,
    recipe: Recipe,
    protocol: Protocol,
    seed: int,
    title: str,
) -> Losses:
    """Train the network in place; the seed draws the order, the views and the mixing."""
    world = run.world
    loader = data.open_finetuning(
        run.config, world, images, recipe, protocol.batch // world.size, seed
    )
    steps = len(loader) * protocol.epochs * protocol.batch
    with contextlib.closing(loader), _seeded(seed, run):
        with track(title, steps, unit="images") as advance:
            return _train(network.train(), loader, run, protocol, advance)


def _train(
    network: Classifier,
    loader: Loader,
    run: TrainedRun,
    protocol: Protocol,
    advance: Callable[[int], None],
) -> Losses:
    world, amp, optim = run.world, run.amp, protocol.optim
    model = sharding.replicate(network, world)
    optimiser = optimizers.build_groups(optim, _groups(network, protocol))
    scaler = torch.amp.GradScaler(world.device.type, enabled=amp is torch.float16)
    change = augment.build(protocol, network.classes, world.device)
    per_epoch, means = len(loader), []
    for epoch in range(protocol.epochs):
        total = torch.zeros((), device=world.device)
        for step, batch in enumerate(loader, epoch * per_epoch):
            rates = schedules.rates_at(
                optim, protocol.batch, step, per_epoch * protocol.epochs, per_epoch
            )
            optimizers.set_rates(optimiser, rates)
            views, targets = change(*_views(batch))
            with torch.autocast(world.device.type, amp, enabled=amp is not None):
                logits = model(views)
            # Mixing has already smoothed the labels.
            smoothing = 0.0 if protocol.mixes else protocol.smoothing
            loss = cross_entropy(logits.float(), targets, label_smoothing=smoothing)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad(set_to_none=True)
            total += loss.detach()
            advance(protocol.batch)
            del batch, views, targets  # so that the loader can reuse their memory
        means.append(distributed.mean(total / per_epoch).item())
        if not math.isfinite(means[-1]):
            raise MillError(
                f"fine-tuning diverged in epoch {epoch + 1}: its loss is {means[-1]}; use a lower "
                f"rate than lr={optim.lr:g}"
            )
    return Losses(means[0], means[-1])


def _views(batch: ViewBatch) -> tuple[torch.Tensor, torch.Tensor]:
    views, labels = flatten_views(batch), batch.labels
    assert labels is not None  # subsets are of labelled images
    return views, labels.repeat(len(views) // len(batch))


def _groups(network: Classifier, protocol: Protocol) -> list[dict]:
    head_lr = protocol.head_lr or protocol.optim.lr
    return layer_groups.build(
        protocol.optim,
        network.backbone,
        network.head,
        protocol.layer_decay,
        head_lr / protocol.optim.lr,
    )


@contextlib.contextmanager
def _seeded(seed: int, run: TrainedRun) -> Iterator[None]:
    """Seed the generators for this rank; restore them afterwards."""
    devices = [run.world.device] if run.world.device.type == "cuda" else []
    with torch.random.fork_rng(devices), augment.seeded(seed, run.world.rank):
        seed_generators(seed, run.world)
        yield


# ------------------------------------------------------------------------------------------- tests


def test(network: Classifier, run: TrainedRun, title: str) -> dict[str, float]:
    """Return top-1 accuracy on one view of each test image, and top-5 with more classes."""
    distributed.broadcast_from_rank0(network.buffers())  # running statistics differ between ranks
    count = min(TOP, network.classes)

    def predict(batch: ViewBatch) -> torch.Tensor:
        (view,) = batch.crops()
        return network(view).topk(count).indices

    loader = data.open_evaluation(run.config, run.world, "test")
    with track(title, count_images(loader), unit="images") as advance:
        predicted = extract_with(predict, network, loader, None, run.amp, advance)
    right = predicted.rows.long() == predicted.labels[:, None]
    scores = {"top1": right[:, 0].double().mean().item()}
    if network.classes > TOP:
        scores["top5"] = right.any(1).double().mean().item()
    return scores
