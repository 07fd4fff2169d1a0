"""`as_tuples` and `as_dicts`: batches as plain tuples and dicts, for training code of any kind."""

from __future__ import annotations

import functools
from typing import Any

import torch

from patchmill.loaders.adapt.adapted import Adapted, check_loader
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.loader import Loader


def as_tuples(loader: Loader) -> Adapted:
    """Batches as `(crops, labels)`: a list of [B, 3, size, size] tensors, and [B] or None."""
    return Adapted(loader, tuple)


def as_dicts(loader: Loader, **keys: str) -> Adapted:
    """Batches as plain dicts.

    keys: key names and their content, as in `pixel_values="global", labels="labels"`; by default,
        all view groups, `ids` and (if there are any) `labels` under their own names. A group of one
        view is [B, 3, size, size], any other [B, count, 3, size, size].
    """
    recipe = check_loader(loader).recipe
    known = [*(group.name for group in recipe.views), "labels", "ids"]
    for key, name in keys.items():
        if name not in known:
            raise MillError(
                f"as_dicts cannot put {name!r} under {key!r}: batches of the recipe {recipe.name} "
                f"have {', '.join(known)}"
            )
    return Adapted(loader, functools.partial(_as_dict, keys=keys))


def labels_of(batch: ViewBatch, user: str) -> torch.Tensor:
    """The batch's labels; MillError if its images have none."""
    if batch.labels is None:
        raise MillError(
            f"{user} needs labels, but these images have none: use images in class folders"
        )
    return batch.labels


def _as_dict(batch: ViewBatch, keys: dict[str, str]) -> dict[str, Any]:
    entries = {}
    for key, name in (keys or {name: name for name in batch.keys()}).items():
        value = labels_of(batch, f"as_dicts({key}='labels')") if name == "labels" else batch[name]
        entries[key] = value[:, 0] if name in batch.views and value.shape[1] == 1 else value
    return entries
