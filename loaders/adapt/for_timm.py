"""`as_timm`: batches for the training loop of timm's train.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from patchmill.loaders.adapt.adapted import Adapted, only_view
from patchmill.loaders.adapt.forms import labels_of
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.loader import Loader

Mixup = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def as_timm(loader: Loader, mixup: Mixup | None = None) -> TimmLoader:
    """Batches as `(input, target)`: [B, 3, size, size] and [B], for recipes with one view.

    mixup: timm's `Mixup`, which draws from NumPy's generator, or any function of both tensors;
        disabled by `mixup_enabled = False`, as timm's train.py does after --mixup-off-epoch
    """
    return TimmLoader(loader, mixup)


class TimmLoader(Adapted):
    """A loader with the interface of timm's PrefetchLoader."""

    def __init__(self, loader: Loader, mixup: Mixup | None) -> None:
        self._group = only_view(loader, "timm's loop")
        super().__init__(loader, self._pair)
        if mixup is not None and loader.batch_size % 2:
            raise MillError(
                f"mixup mixes pairs of images, but batch_size is {loader.batch_size}: "
                "use an even one"
            )
        self._mixup, self.mixup_enabled = mixup, mixup is not None

    def _pair(self, batch: ViewBatch) -> tuple[Any, Any]:
        pair = batch.views[self._group][:, 0], labels_of(batch, "timm's loop")
        return self._mixup(*pair) if self._mixup and self.mixup_enabled else pair
