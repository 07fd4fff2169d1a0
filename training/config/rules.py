"""Checks between the settings of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError
from patchmill.training.config.recipes import evaluation_recipe, training_recipe

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config
    from patchmill.training.methods import Method


def check(config: Config) -> None:
    """Raise a MillError for settings that are incompatible."""
    from patchmill.training.methods import find

    recipe = training_recipe(config)
    evaluation_recipe(config)  # raises for a view that cannot be rendered
    _check_cache(config)
    find(config.method_name).check(config.method, recipe)
    optim, epochs = config.optim, config.train.epochs
    for holds, message in [
        (
            optim.warmup <= epochs,
            f"optim.warmup={optim.warmup:g} epochs are more than train.epochs={epochs}: "
            "shorten the warm-up too",
        ),
        (
            optim.momentum > 0 or not optim.nesterov,
            "optim.nesterov=true needs a momentum: set optim.momentum above 0",
        ),
        (
            config.name not in (".", "..") and not set(config.name) & set("/\\\0"),
            f"name must be the name of a folder, not {config.name!r}: the folder it lies in is "
            "out=DIR",
        ),
        (
            config.evaluate.stop_at is None or config.evaluate.knn_every > 0,
            "evaluate.stop_at needs evaluations during training: set evaluate.knn_every=1",
        ),
    ]:
        if not holds:
            raise MillError(message)


def _check_cache(config: Config) -> None:
    from patchmill.loaders.decoded import spec

    if config.data.cache is None:
        return
    kind = spec.parse(config.data.cache).kind
    if config.train.pipeline == "ffcv" and kind != "device":
        raise MillError(
            f"data.cache={config.data.cache} keeps decoded images, which FFCV's pipeline does not "
            "read: use train.pipeline=threads, a cache of a GPU's memory (device:SIZE), or no "
            "data.cache"
        )


def check_batch(config: Config, method: Method, ranks: int) -> None:
    """Raise a MillError for a batch that the method cannot learn from on this many ranks."""
    from torch.nn.modules.batchnorm import _BatchNorm

    micro_batch = config.train.batch_size // config.train.accumulate  # over all ranks
    if problem := method.batch_problem(micro_batch, ranks):
        raise MillError(problem)
    has_batch_norm = any(isinstance(module, _BatchNorm) for module in method.modules())
    if micro_batch == ranks > 1 and has_batch_norm and not config.train.sync_bn:
        raise MillError(
            f"each of {ranks} ranks has one image at a time, which batch norm cannot normalise: "
            f"use train.batch_size={2 * config.train.batch_size} or more, or train.sync_bn=true"
        )
