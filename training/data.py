"""The loaders of a run: what it trains on, and what it is evaluated on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from patchmill import loaders
from patchmill.loaders.build import require_samples
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import Source, open_data
from patchmill.training.config.recipes import evaluation_recipe, training_recipe

if TYPE_CHECKING:
    import torch

    from patchmill.loaders.loader import Loader
    from patchmill.loaders.sources.stream.source import StreamSource
    from patchmill.training.config.settings import Config
    from patchmill.training.ranks.distributed import World

Split = Literal["train", "test"]


def open_training(config: Config, world: World, folder: Path) -> Loader:
    """Batches of this rank's share of a global batch; `accumulate` of them make a step."""
    source = open_data(config.data.train)
    check_sample_count(source, config)
    return loaders.build(
        source,
        config.method.views,
        share(config, world.size),
        seed=config.seed,
        device=world.device,
        pipeline=config.train.pipeline,
        dtype=_dtype(config, world),
        channels_last=channels_last(config, world),
        rank=world.rank,
        world_size=world.size,
        workers=config.train.workers,
        ledger=Path(folder) / f"ledger-rank{world.rank}.jsonl",
        steps=config.data.steps,
        masks=config.data.masks,
        backgrounds=config.data.backgrounds,
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
    """All images of a split, once in an epoch, each on one rank.

    The order is that of an epoch, `batch.ids` say which images they are. Views are made by
    `evaluate.view`, unless told otherwise, and normalised as those that were trained on.
    """
    source = open_data(_place(config, split))
    if labelled and source.labels is None:
        raise MillError(
            f"{source.name} has no labels to evaluate with: name images that have some, "
            f"as data.{'test' if split == 'test' else 'bank'}=DIR"
        )
    return loaders.build(
        source,
        as_trained(load_recipe(recipe) if recipe else evaluation_recipe(config), config),
        _even(source, batch_size or config.evaluate.batch_size, world.size),
        seed=config.seed,
        device=world.device,
        # FFCV's pipeline reads betons alone, which the images to test on need not be.
        pipeline="threads" if config.train.pipeline == "ffcv" else config.train.pipeline,
        channels_last=channels_last(config, world),
        rank=world.rank,
        world_size=world.size,
        workers=config.train.workers,
        drop_last=False,
    )


def labels(config: Config) -> int | None:
    """How many classes the training data has; None where it has no labels."""
    return classes(open_data(config.data.train))


def classes(source: Source | StreamSource) -> int | None:
    if source.labels is None:
        return None
    return max(len(source.classes), int(source.labels.max(initial=-1)) + 1)


def share(config: Config, ranks: int) -> int:
    """Images that a rank sees at a time: its part of the global batch, by parts of a step."""
    batch, parts = config.train.batch_size, config.train.accumulate
    if batch % (ranks * parts) == 0:
        return batch // (ranks * parts)
    near = max(batch // (ranks * parts), 1) * ranks * parts
    among = f"{ranks} ranks" if parts == 1 else f"{ranks} ranks x train.accumulate={parts}"
    raise MillError(
        f"train.batch_size={batch} cannot be shared out among {among}: take {near}, for example"
    )


def channels_last(config: Config, world: World) -> bool:
    """The memory format of images: on GPUs, convolutions are faster with channels last."""
    chosen = config.train.channels_last
    return world.device.type == "cuda" if chosen == "auto" else bool(chosen)


def _dtype(config: Config, world: World) -> torch.dtype | None:
    """On GPUs, views come in what the first layer computes in: half the memory, and no cast."""
    from patchmill.training.runtime import precision

    return precision.of(config.train, world.device) if world.device.type == "cuda" else None


def as_trained(recipe: Recipe, config: Config) -> Recipe:
    """The recipe with the mean and std of training's views: the network knows no others."""
    known = training_recipe(config).views[0]
    views = [replace(group, mean=known.mean, std=known.std) for group in recipe.views]
    return replace(recipe, views=tuple(views))


def _place(config: Config, split: Split) -> str:
    data = config.data
    place = data.test if split == "test" else data.bank or data.train
    if place is None:
        raise MillError(f"data={data.name} has no images to test on: name some, as data.test=DIR")
    return place


def check_sample_count(source: Source | StreamSource, config: Config) -> None:
    """Raise a MillError for a data set with less than one batch of training."""
    batch = config.train.batch_size
    require_samples(source, batch, f"train.batch_size={batch}", "take a smaller batch")


def _even(source: Source | StreamSource, batch: int, ranks: int) -> int:
    """The largest size up to `batch` that leaves no rank without a share of the last batch."""
    count = source.sample_count
    if ranks == 1 or count is None:
        return batch
    rests = ((size, count % (size * ranks)) for size in range(batch, 0, -1))
    return next((size for size, rest in rests if not 0 < rest < ranks), batch)
