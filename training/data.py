"""Data loaders of a run, for training and for evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill import loaders
from patchmill.loaders.build import require_samples
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import spec
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import Source, open_data
from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.training.config.recipes import evaluation_recipe, training_recipe
from patchmill.training.data_splits import Split, open_split, tests_on_training

if TYPE_CHECKING:
    import torch

    from patchmill.loaders.loader import Loader
    from patchmill.training.config.settings import Config
    from patchmill.training.ranks.distributed import World


# Parameters of `loaders.build` -> a run's settings.
SETTINGS = {
    "workers": "train.workers",
    "prefetch": "train.prefetch",
    "pipeline": "train.pipeline",
    "device": "train.device",
    "cache": "data.cache",
}


def open_training(config: Config, world: World, folder: Path) -> Loader:
    """Open the loader of this rank's micro-batches; `train.accumulate` of them make a step."""
    source = open_data(config.data.train)
    check_sample_count(source, config)
    return loaders.build(
        source,
        config.method.views,
        local_batch_size(config, world.size),
        seed=config.seed,
        device=world.device,
        pipeline=config.train.pipeline,
        dtype=_dtype(config, world),
        channels_last=channels_last(config, world),
        rank=world.rank,
        world_size=world.size,
        workers=config.train.workers,
        prefetch=config.train.prefetch,
        ledger=Path(folder) / f"ledger-rank{world.rank}.jsonl",
        steps=config.data.steps,
        masks=config.data.masks,
        backgrounds=config.data.backgrounds,
        cache=config.data.cache,
        max_pixels=config.data.max_pixels,
    )


def open_evaluation(
    config: Config,
    world: World,
    split: Split,
    recipe: str | Recipe | None = None,
    batch_size: int | None = None,
    *,
    labelled: bool = True,
) -> Loader:
    """Open a loader of all images of a split, each once per epoch and on one rank.

    Images come in an epoch's order; `batch.ids` identifies them. Views follow `evaluate.view` or
    `recipe`, and are normalised as in training.
    """
    source = open_split(config, split)
    if labelled and source.labels is None:
        raise MillError(
            f"{source.name} has no labels to evaluate with: name labelled images with "
            f"data.{'test' if split == 'test' else 'bank'}=DIR"
        )
    return loaders.build(
        source,
        normalised_as_trained(load_recipe(recipe) if recipe else evaluation_recipe(config), config),
        _even_batch_size(source, batch_size or config.evaluate.batch_size, world.size),
        seed=config.seed,
        device=world.device,
        pipeline=_any_source(config),
        channels_last=channels_last(config, world),
        rank=world.rank,
        world_size=world.size,
        workers=config.train.workers,
        prefetch=config.train.prefetch,
        drop_last=False,
        cache=shared_cache(config, split),
        max_pixels=config.data.max_pixels,
    )


def shared_cache(config: Config, split: Split) -> str | None:
    """Return training's decoded cache if the split is its data; a GPU's belongs to one loader."""
    data = config.data
    trained_on = split == "train" and data.bank in (None, data.train)
    if data.cache is None or not trained_on or tests_on_training(config):
        return None
    return None if spec.parse(data.cache).kind == "device" else data.cache


def open_numbered(config: Config, split: Split) -> Source:
    """Open the images of a split as a numbered source."""
    source = open_split(config, split)
    if isinstance(source, StreamSource):
        raise MillError(f"{source.name} is streamed, but numbered images are needed: download them")
    return source


def open_finetuning(
    config: Config, world: World, source: Source, recipe: Recipe, batch_size: int, seed: int
) -> Loader:
    """Open a loader of views for fine-tuning, normalised as in training; batches are whole."""
    return loaders.build(
        source,
        normalised_as_trained(recipe, config),
        batch_size,
        seed=seed,
        device=world.device,
        pipeline=_any_source(config),
        dtype=_dtype(config, world),
        channels_last=channels_last(config, world),
        rank=world.rank,
        world_size=world.size,
        workers=config.train.workers,
        prefetch=config.train.prefetch,
        max_pixels=config.data.max_pixels,
    )


def count_classes(config: Config) -> int | None:
    """Return the number of classes in the training data; None without labels."""
    return source_classes(open_data(config.data.train))


def classes_to_learn(config: Config) -> int | None:
    """Return `count_classes` for a method that learns from labels, else None."""
    from patchmill.training.methods import find

    return count_classes(config) if find(config.method_name).needs_labels else None


def source_classes(source: Source | StreamSource) -> int | None:
    if source.labels is None:
        return None
    return max(len(source.classes), int(source.labels.max(initial=-1)) + 1)


def local_batch_size(config: Config, ranks: int) -> int:
    """Return the number of images in one rank's micro-batch."""
    batch, micro_batches = config.train.batch_size, config.train.accumulate
    if batch % (ranks * micro_batches) == 0:
        return batch // (ranks * micro_batches)
    near = max(batch // (ranks * micro_batches), 1) * ranks * micro_batches
    among = (
        f"{ranks} ranks"
        if micro_batches == 1
        else f"{ranks} ranks x train.accumulate={micro_batches}"
    )
    raise MillError(
        f"train.batch_size={batch} cannot be divided among {among}: use {near}, for example"
    )


def channels_last(config: Config, world: World) -> bool:
    """Choose the memory format: on GPUs, convolutions are faster with channels last."""
    chosen = config.train.channels_last
    return world.device.type == "cuda" if chosen == "auto" else bool(chosen)


def normalised_as_trained(recipe: Recipe, config: Config) -> Recipe:
    """Return the recipe with the mean and std of the training views."""
    trained_on = training_recipe(config).views[0]
    views = [replace(group, mean=trained_on.mean, std=trained_on.std) for group in recipe.views]
    return replace(recipe, views=tuple(views))


def _dtype(config: Config, world: World) -> torch.dtype | None:
    """Choose the dtype of views: on GPUs autocast's, which halves their memory and saves a cast."""
    from patchmill.training.runtime import device

    return device.amp_dtype(config.train, world.device) if world.device.type == "cuda" else None


def _any_source(config: Config) -> str:
    """Return the run's pipeline, unless it is FFCV's, which only reads betons."""
    return "threads" if config.train.pipeline == "ffcv" else config.train.pipeline


def check_sample_count(source: Source | StreamSource, config: Config) -> None:
    """Raise a MillError for a data set with less than one training batch."""
    batch, count = config.train.batch_size, source.sample_count or 0
    smaller = 1 << max((count // 2).bit_length() - 1, 0)  # a power of two, for two steps
    remedy = f"use a smaller batch, such as train.batch_size={smaller}"
    require_samples(source, batch, f"train.batch_size={batch}", remedy)


def _even_batch_size(source: Source | StreamSource, batch: int, ranks: int) -> int:
    """Return the largest batch size up to `batch` that gives every rank part of the last batch."""
    count = source.sample_count
    if ranks == 1 or count is None:
        return batch
    rests = ((size, count % (size * ranks)) for size in range(batch, 0, -1))
    return next((size for size, rest in rests if not 0 < rest < ranks), batch)
