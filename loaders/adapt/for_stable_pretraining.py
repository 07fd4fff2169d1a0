"""`StablePretrainingDataModule`: batches for stable-pretraining's forward functions."""

from __future__ import annotations

from typing import Any

import torch

from patchmill.loaders.adapt.adapted import Adapted
from patchmill.loaders.adapt.for_lightning import LightningDataModule
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.loader import Loader
from patchmill.loaders.recipe import Recipe


def as_stable_pretraining(loader: Loader) -> Adapted:
    """Batches as dicts, whose form depends on the number of views.

    One view: {"image", "label", "sample_idx"}. One view group: {"views": [such dicts]}, for its
    `simclr` and `vicreg`. Several: {"views": {"global_1": dict, ..., "local_1": dict, ...}}, for
    its `dino`. Without labels, there is no "label".
    """
    return Adapted(loader, _as_dict)


class StablePretrainingDataModule(LightningDataModule):
    """`LightningDataModule` with batches in the form of `as_stable_pretraining`."""

    def __init__(self, data: Any, recipe: Recipe | str, batch_size: int, **settings: Any) -> None:
        super().__init__(data, recipe, batch_size, form=as_stable_pretraining, **settings)


def _as_dict(batch: ViewBatch) -> dict[str, Any]:
    groups = {
        name: [_view(crop, batch) for crop in group.unbind(1)]
        for name, group in batch.views.items()
    }
    if len(groups) > 1:
        return {"views": {f"{n}_{i + 1}": it for n, g in groups.items() for i, it in enumerate(g)}}
    (views,) = groups.values()
    return views[0] if len(views) == 1 else {"views": views}


def _view(crop: torch.Tensor, batch: ViewBatch) -> dict[str, torch.Tensor]:
    labels = {} if batch.labels is None else {"label": batch.labels}
    return {"image": crop, **labels, "sample_idx": batch.ids}
