"""LeJEPA (Balestriero and LeCun, arXiv 2511.08544): views agree, and embeddings are Gaussian.

Every view agrees with the centre of its image's global views, while SIGReg pulls the distribution
of each view's embeddings over the batch towards an isotropic Gaussian. There is no teacher, no
predictor and no stop-gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe
from patchmill.training.config.settings import Count, Share, Width
from patchmill.training.methods.method import (
    ANY,
    Losses,
    Method,
    Progress,
    embedding_std,
    unflatten_views,
)
from patchmill.training.nets import heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.objectives.sigreg import draw_directions, sigreg


@dataclass
class LeJEPASettings:
    views: str = "lejepa"  # the recipe: a preset with its knobs, or a YAML file
    hidden: list[Count] = field(default_factory=lambda: [2048, 2048])  # widths of the projector
    dim: Width = 128  # width of the projector's output
    weight: Share = 0.05  # lambda: weight of SIGReg; the views' invariance has 1 - lambda
    directions: Count = 1024  # random directions that SIGReg projects on, redrawn in each step


class LeJEPA(Method):
    Settings = LeJEPASettings
    projector: nn.Sequential
    view_groups = ((1, ANY), (0, ANY))  # global and local views

    def __init__(self, settings: LeJEPASettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.projector = heads.mlp([backbone.num_features, *settings.hidden, settings.dim])
        self.step = 0

    def on_step_start(self, progress: Progress) -> None:
        self.step = progress.step

    def forward(self, batch: ViewBatch) -> Losses:
        # One pass through the backbone for each size of views; the projector sees all of them.
        h = torch.cat([self.backbone(batch.flat(group)) for group in batch.views])
        z = unflatten_views(self.projector(h).float(), batch)
        centre = z[: _global_views(batch)].mean(0)
        invariance = (centre - z).square().mean()
        # As in the released code, the step is the seed: ranks and resumed runs draw the same.
        settings = self.settings
        directions = draw_directions(settings.dim, settings.directions, self.step, z.device)
        gaussian = sigreg(z, directions)
        loss = settings.weight * gaussian + (1 - settings.weight) * invariance
        metrics = {
            "sigreg": gaussian.detach(),
            "invariance": invariance.detach(),
            "spread": embedding_std(normalize(z, dim=-1)),
        }
        return Losses(loss, metrics)

    @classmethod
    def check(cls, settings: Any, recipe: Recipe) -> None:
        super().check(settings, recipe)
        if recipe.views[0].name == "local":
            raise MillError(
                f"method.views: LeJEPA compares views with the global ones, but {recipe.name} "
                "makes only local ones: start it with a group of global views"
            )
        if recipe.total < 2:
            raise MillError(
                f"method.views: LeJEPA takes at least 2 views of an image, but {recipe.name} "
                f"makes {recipe.total}"
            )


def _global_views(batch: ViewBatch) -> int:
    """Number of views in the first group."""
    return next(iter(batch.views.values())).shape[1]
