"""`LightningDataModule`: a loader for Lightning's Trainer, built once the ranks are known."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

from patchmill.loaders.build import build
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.loader import Loader
from patchmill.loaders.recipe import Recipe


def _lightning() -> Any:
    """Import Lightning under whichever of its two names is in use: their classes differ."""
    names = ["lightning.pytorch", "pytorch_lightning"]
    for name in sorted(names, key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise  # a dependency of Lightning is missing
    raise MillError("Lightning is not installed: pip install lightning")


class LightningDataModule(_lightning().LightningDataModule):  # type: ignore[misc]
    """Trains on batches of `loaders.build(data, recipe, batch_size, **settings)`.

    form: adapts the loader, as `as_tuples` does; without it, batches are `ViewBatch`es, which
        unpack as `crops, labels = batch`
    validation: settings of `build` for validation, such as dict(data="val/", recipe="eval"); the
        others are those for training, and every image is seen once

    Batches are made on the trainer's device if that is a GPU. Lightning keeps the position in its
    checkpoints, so that `fit(ckpt_path=...)` resumes in the middle of an epoch.
    """

    def __init__(
        self,
        data: Any,
        recipe: Recipe | str,
        batch_size: int,
        *,
        form: Callable[[Loader], Any] | None = None,
        validation: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._form = form
        self._settings = {"data": data, "recipe": recipe, "batch_size": batch_size, **settings}
        self._validation = validation
        for name in [*settings, *(validation or {})]:
            if name not in inspect.signature(build).parameters:
                raise MillError(
                    f"{type(self).__name__} takes the settings of loaders.build, and {name} is "
                    "not one of them"
                )

    def train_dataloader(self) -> Any:
        trainer = self.trainer
        if trainer is not None and trainer.overfit_batches:
            raise MillError(
                "overfit_batches changes the sampler of a torch DataLoader, which is not used "
                "here: use limit_train_batches"
            )
        loader = self._open({})
        try:
            len(loader)
        except TypeError:
            raise MillError(
                "Lightning reads ahead of training if the length of an epoch is unknown, so "
                "checkpoints would skip batches: set the batches of an epoch, as in steps=1000"
            ) from None
        return loader

    def val_dataloader(self) -> Any:
        return (
            [] if self._validation is None else self._open({"drop_last": False, **self._validation})
        )

    def _open(self, changes: dict[str, Any]) -> Any:
        root = None if self.trainer is None else self.trainer.strategy.root_device
        device = root if root is not None and root.type == "cuda" else "cpu"
        loader = build(**{"device": device, **self._settings, **changes})
        return loader if self._form is None else self._form(loader)
