"""Selfie (Trinh et al., arXiv 1906.02940): predict which masked patch of an image belongs where.

An image is cut into a grid of patches. Attention pooling summarises the unmasked ones in u. For
each masked cell m, the query u + e_m, with e_m the cell's position embedding, must find the patch
of that cell among all masked patches of the same image.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy

from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Grid, Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.training.config.settings import Count, Share
from patchmill.training.methods.method import ANY, Losses, Method, flatten_views
from patchmill.training.nets import dense, patch_network
from patchmill.training.nets.attention_pooling import AttentionPooling, GridPositions
from patchmill.training.nets.backbones import Backbone

if TYPE_CHECKING:
    from patchmill.training.config.settings import Model


@dataclass
class SelfieSettings:
    views: str = "selfie"  # the recipe: a preset with its knobs, or a YAML file
    masked: Share = 0.25  # share of an image's patches that are masked
    blocks: Count = 3  # blocks of attention pooling's transformer
    heads: Count = 32  # its attention heads
    hidden: Count = 640  # width of its feed-forward layers
    dropout: Share = 0.1  # its dropout
    layer_norm: Literal["post", "pre"] = "post"  # after each of its layers, or before
    positions: Literal["auto", "table", "rows_columns"] = "auto"  # auto: table up to 16 patches
    shared_positions: bool = True  # queries and unmasked patches share position embeddings


class Selfie(Method):
    Settings = SelfieSettings
    view_groups = ((1, ANY),)  # grids of patches

    def __init__(self, settings: SelfieSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.grid = _grid_of(load_recipe(settings.views))
        self.masked = _count_masked(settings, self.grid)
        width = backbone.num_features
        self.pooling = AttentionPooling(
            width,
            blocks=settings.blocks,
            heads=settings.heads,
            hidden=settings.hidden,
            dropout=settings.dropout,
            pre_norm=settings.layer_norm == "pre",
        )
        positions = functools.partial(
            GridPositions, self.grid.rows, self.grid.columns, width, settings.positions
        )
        self.positions = positions()
        self.context_positions = None if settings.shared_positions else positions()

    @classmethod
    def make_backbone(cls, settings: SelfieSettings, model: Model, recipe: Recipe) -> Backbone:
        """Build the patch network: three stages of a ResNet, which also take whole images."""
        whole = functools.partial(super().make_backbone, settings, model, recipe)
        return patch_network.first_stages(whole)

    def forward(self, batch: ViewBatch) -> Losses:
        h = self._patches(batch)
        order = permutations(len(h), h.shape[1], h.device)
        masked, context = order[:, : self.masked], order[:, self.masked :]
        positions = (self.context_positions or self.positions)()
        u = self.pooling(_take(h, context) + positions[context])
        v = u[:, None] + self.positions()[masked]
        with torch.autocast(h.device.type, enabled=False):  # scores are large
            scores = v.float() @ _take(h, masked).float().mT  # [grids, masked, masked]
        target = torch.arange(self.masked, device=h.device).expand(len(h), -1)
        loss = cross_entropy(scores.flatten(0, 1), target.flatten())
        accuracy = (scores.detach().argmax(2) == target).float().mean()
        return Losses(loss, {"accuracy": accuracy})

    def finetune_network(self, variant: str = "auto") -> Backbone:
        """Return a network to fine-tune on whole images, starting from this method's weights.

        resnet50, the default (auto): the whole ResNet, whose last stage is new.
        resnet36_attention: the patch network with the trained attention pooling.
        """
        if variant in ("auto", "student", "resnet50"):
            return patch_network.with_new_stages(self.backbone)
        if variant == "resnet36_attention":
            positions = self.context_positions or self.positions
            return copy.deepcopy(Attended(self.backbone, self.pooling, positions, self.grid))
        known = dict.fromkeys(("auto", "resnet50", "resnet36_attention"))
        raise MillError(f"variant: Selfie has no network {variant!r}{nearest(variant, known)}")

    @classmethod
    def check(cls, settings: SelfieSettings, recipe: Recipe) -> None:
        super().check(settings, recipe)
        _count_masked(settings, _grid_of(recipe))

    def _patches(self, batch: ViewBatch) -> torch.Tensor:
        """Compute h of all patches, [grids, cells, width]: batch norm sees them together."""
        h = self.backbone(flatten_views(batch))
        cells = self.grid.rows * self.grid.columns
        return h.unflatten(0, (-1, cells, len(batch))).transpose(1, 2).flatten(0, 1)


def permutations(grids: int, cells: int, device: torch.device) -> torch.Tensor:
    """Draw a random order of each grid's cells, [grids, cells], from torch's generator."""
    return torch.rand(grids, cells, device=device).argsort(1)


class Attended(Backbone):
    """Attention pooling of whole images, whose feature map is averaged within a grid's cells."""

    def __init__(
        self, backbone: Backbone, pooling: AttentionPooling, positions: GridPositions, grid: Grid
    ) -> None:
        super().__init__()
        self.backbone, self.pooling, self.positions = backbone, pooling, positions
        self.cells = (grid.rows, grid.columns)
        self.num_features = backbone.num_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        cells = adaptive_avg_pool2d(dense.feature_map(self.backbone, images), self.cells)
        return self.pooling(cells.flatten(2).mT + self.positions())


def _take(vectors: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Select the vectors of `cells` [grids, some cells] from [grids, all cells, width]."""
    return vectors.take_along_dim(cells[..., None], dim=1)


def masked_patches(settings: SelfieSettings) -> int:
    """Number of patches that are masked in each image."""
    return _count_masked(settings, _grid_of(load_recipe(settings.views)))


def _grid_of(recipe: Recipe) -> Grid:
    crop = recipe.views[0].crop
    if isinstance(crop, Grid):
        return crop
    raise MillError(
        f"method.views: Selfie takes the patches of a grid, but {recipe.name} makes whole views: "
        "use selfie(size=32, patch=8)"
    )


def _count_masked(settings: SelfieSettings, grid: Grid) -> int:
    """Return the number of masked patches in each grid."""
    cells = grid.rows * grid.columns
    count = round(settings.masked * cells)
    if 2 <= count < cells:
        return count
    hint = f"use a value from {2 / cells:.2g} to {1 - 1 / cells:.2g}"
    if cells < 3:
        hint = "cut images into more patches, as method.views='selfie(size=32, patch=8)'"
    raise MillError(
        f"method.masked={settings.masked:g} masks {count} of an image's {cells} patches, but "
        f"Selfie needs at least two masked and one unmasked: {hint}"
    )
