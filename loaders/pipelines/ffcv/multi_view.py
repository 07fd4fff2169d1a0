"""`MultiView`: an FFCV operation that makes all views of a recipe inside FFCV's own loader.

    views = MultiView("dino", seed=0)
    loader = Loader("train.beton", 256, num_workers=16, order=OrderOption.RANDOM,
                    pipelines={"image": [views], "label": None})
    for (arrays,) in loader:
        batch = views.batch(arrays, labels)  # labels: of all samples, in the file's order

An image is decoded once. Pixels are those of `loaders/decode/decoder.py`, decisions those of
`loaders/plan/draw.py`: a sample has the same views in an epoch as in every other pipeline. A sample
that cannot be decoded is recorded in the ledger and substituted as in every other pipeline.
`batch.ids` and `batch.labels` are those of the substitute, which FFCV's own label field is not.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import ROW
from patchmill.loaders import recipe as recipes
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common import cache
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.pipelines.ffcv import workarounds  # noqa: F401  # before anything of FFCV
from patchmill.loaders.pipelines.ffcv.view_decoder import BatchArrays, ViewDecoder
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import Source


class MultiView(ViewDecoder):
    """The only operation in the pipeline of an RGBImageField.

    Each iteration of the loader is the next epoch; set `epoch` before an iteration to choose which,
    as after a restart. With `source`, the Beton of the same file, the ledger says where in the
    file bad samples lie.
    """

    def __init__(
        self,
        recipe: recipes.Recipe | str | Path,
        seed: int = 0,
        *,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        source: Source | None = None,
        ledger: str | Path | None = None,
    ) -> None:
        recipe = load_recipe(recipe)
        if any(group.extra for group in recipe.views):
            raise MillError(
                "MultiView does not apply the operations that a recipe lists as extra: take "
                "loaders.build(..., pipeline='ffcv') or pipeline='threads', which do"
            )
        laws, targets = draw.law_table(recipe), draw.targets(recipe)
        super().__init__(laws, targets, seed, dtype, channels_last, source)
        self.epoch = -1  # FFCV asks for memory once when it compiles, and then for each epoch
        self._ledger = ledger

    def batch(
        self, arrays: BatchArrays, labels: np.ndarray | torch.Tensor | None = None
    ) -> ViewBatch:
        """Wrap what FFCV's loader gave for the field. FFCV owns the memory and will reuse it.

        An error while the batch was made, such as too many bad samples, is raised here.
        """
        pixels, ids, shapes, rows, _ = arrays
        ids = ids[:, 0]
        self.check(ids)
        flat = torch.from_numpy(pixels).view(self.dtype).flatten()
        views = layout.views_by_group(flat, self.targets, len(ids), self.channels_last)
        own_labels = None if labels is None else torch.from_numpy(np.asarray(labels)[ids])
        return ViewBatch(
            views, torch.from_numpy(ids), own_labels, rows.view(ROW), shapes, self.targets
        )

    def next_epoch(self) -> int:
        epoch, self.epoch = max(self.epoch, 0), self.epoch + 1
        return epoch

    def accept_globals(self, metadata: np.ndarray, memory_read: Any) -> None:
        super().accept_globals(metadata, memory_read)
        if not hasattr(self, "ledger"):
            path = _default_ledger(metadata) if self._ledger is None else Path(self._ledger)
            self.ledger = Ledger(path, len(metadata))


def _default_ledger(metadata: np.ndarray) -> Path:
    name = f"ffcv-{zlib.crc32(metadata.tobytes()):08x}-rank{os.environ.get('RANK', 0)}.jsonl"
    return cache.root() / "ledgers" / name
