"""`MultiView`: an FFCV operation that makes all views of a recipe inside FFCV's own loader.

    views = MultiView("dino", seed=0)
    loader = Loader("train.beton", 256, num_workers=16, order=OrderOption.RANDOM,
                    pipelines={"image": [views], "label": None})
    for (arrays,) in loader:
        batch = views.batch(arrays, labels)  # labels: of all samples, in the file's order

An image is decoded once. Pixels are those of `loaders/decode/decoder.py`, decisions those of
`loaders/plan/draw.py`: a sample has the same views in an epoch as in every other pipeline. A sample
that cannot be decoded is recorded in the ledger and substituted as in every other pipeline.
`batch.ids` and `batch.labels` are those of the substitute, unlike FFCV's own label field.
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
from patchmill.loaders.build import backgrounds_for, checked_max_pixels, masks_for
from patchmill.loaders.common import ranks
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste.backgrounds import BackgroundData
from patchmill.loaders.copypaste.masks import Masks
from patchmill.loaders.decode.bad_image import MAX_PIXELS
from patchmill.loaders.files import cache
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.ffcv import workarounds  # noqa: F401  # before anything of FFCV
from patchmill.loaders.pipelines.ffcv.pasting import Pasting
from patchmill.loaders.pipelines.ffcv.view_decoder import BatchArrays, ViewDecoder
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import Source


class MultiView(ViewDecoder):
    """The only operation in the pipeline of an RGBImageField.

    Each iteration of the loader is the next epoch; set `epoch` before an iteration to choose
    another, for example after a restart. With `source`, the Beton of the same file, the ledger
    gives the positions of bad samples in the file. A recipe with copy-paste requires it, and finds
    masks like `loaders.build`: in the file `masks`, next to the .beton, or in it.
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
        masks: str | Path | None = None,
        backgrounds: BackgroundData | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        recipe = own_recipe(recipe)
        laws, targets = draw.law_table(recipe), draw.targets(recipe)
        super().__init__(
            laws,
            targets,
            seed,
            dtype,
            channels_last,
            source,
            max_pixels=checked_max_pixels(max_pixels),
        )
        self.epoch = -1  # FFCV requests memory once when it compiles, and then for each epoch
        self._recipe, self._ledger, self._backgrounds = recipe, ledger, backgrounds
        self._masks = own_masks(masks, source, recipe)

    def batch(
        self, arrays: BatchArrays, labels: np.ndarray | torch.Tensor | None = None
    ) -> ViewBatch:
        """Wrap the arrays from FFCV's loader. FFCV owns the memory and will reuse it.

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
        if hasattr(self, "ledger"):
            return
        self.ledger = own_ledger(self._ledger, metadata)
        if self._masks is not None:
            self.pasting = Pasting(self._config())

    def _config(self) -> PipelineConfig:
        """The part of a pipeline's configuration that copy-paste needs."""
        return own_config(
            self._recipe, self.seed, self.dtype, self.channels_last, torch.device("cpu"),
            self._source, self.ledger, self._masks, self._backgrounds, self.max_pixels,
        )  # fmt: skip


def own_recipe(recipe: recipes.Recipe | str | Path) -> recipes.Recipe:
    """The recipe; MillError if it has custom operations."""
    recipe = load_recipe(recipe)
    if any(group.extra for group in recipe.views):
        raise MillError(
            "MultiView does not apply the operations that a recipe lists as extra: use "
            "loaders.build(..., pipeline='ffcv') or pipeline='threads', which do"
        )
    return recipe


def own_masks(
    masks: str | Path | None, source: Source | None, recipe: recipes.Recipe
) -> Masks | None:
    """The masks for the recipe's copy-paste; None for a recipe without it."""
    if source is None and any(group.paste for group in recipe.views):
        raise MillError(
            f"the recipe {recipe.name} pastes by masks, which MultiView finds by the file's name: "
            "pass the same file as source=Beton(path)"
        )
    return None if source is None else masks_for(masks, source, recipe)


def own_ledger(path: str | Path | None, metadata: np.ndarray) -> Ledger:
    """The ledger at this path, or in the cache under the file's fingerprint."""
    return Ledger(_default_ledger(metadata) if path is None else Path(path), len(metadata))


def own_config(
    recipe: recipes.Recipe,
    seed: int,
    dtype: torch.dtype,
    channels_last: bool,
    device: torch.device,
    source: Source | None,
    ledger: Ledger,
    masks: Masks | None,
    backgrounds: BackgroundData | None,
    max_pixels: int,
) -> PipelineConfig:
    """A pipeline's configuration for FFCV's own loader."""
    assert source is not None
    return PipelineConfig(
        source=source,
        ledger=ledger,
        seed=seed,
        laws=draw.law_table(recipe),
        targets=draw.targets(recipe),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        workers=1,
        prefetch=1,
        max_batch=1,
        max_pixels=max_pixels,
        masks=masks,
        backgrounds=backgrounds_for(backgrounds, recipe, ledger, seed),
    )


def _default_ledger(metadata: np.ndarray) -> Path:
    rank = ranks.number(os.environ, "RANK", 0)
    name = f"ffcv-{zlib.crc32(metadata.tobytes()):08x}-rank{rank}.jsonl"
    return cache.root() / "ledgers" / name
