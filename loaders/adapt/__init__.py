"""Adapters from loaders to the training code of other frameworks: one file per framework.

`as_...` returns the loader with batches in another form; length, epochs, sampler and state remain
the loader's. `Adapted(loader, form)` does this for any form. A framework is imported only when its
adapter is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchmill.loaders.adapt.adapted import Adapted
    from patchmill.loaders.adapt.for_lightly import as_lightly
    from patchmill.loaders.adapt.for_lightning import LightningDataModule
    from patchmill.loaders.adapt.for_stable_pretraining import (
        StablePretrainingDataModule,
        as_stable_pretraining,
    )
    from patchmill.loaders.adapt.for_timm import as_timm
    from patchmill.loaders.adapt.for_torch import as_torch_dataset
    from patchmill.loaders.adapt.for_transformers import LoaderTrainer, as_transformers
    from patchmill.loaders.adapt.forms import as_dicts, as_tuples

__all__ = [
    "Adapted",
    "LightningDataModule",
    "LoaderTrainer",
    "StablePretrainingDataModule",
    "as_dicts",
    "as_lightly",
    "as_stable_pretraining",
    "as_timm",
    "as_torch_dataset",
    "as_transformers",
    "as_tuples",
]

_MODULES = {
    "Adapted": "adapted",
    "LightningDataModule": "for_lightning",
    "LoaderTrainer": "for_transformers",
    "StablePretrainingDataModule": "for_stable_pretraining",
    "as_dicts": "forms",
    "as_lightly": "for_lightly",
    "as_stable_pretraining": "for_stable_pretraining",
    "as_timm": "for_timm",
    "as_torch_dataset": "for_torch",
    "as_transformers": "for_transformers",
    "as_tuples": "forms",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
