"""VICReg (Bardes et al., arXiv 2105.04906): variance, invariance and covariance terms."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Amount, Count
from patchmill.training.methods.method import Losses, Method
from patchmill.training.nets import heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.objectives.vicreg import vicreg


@dataclass
class VICRegSettings:
    views: str = "vicreg"  # the recipe: a preset with its knobs, or a YAML file
    expander: list[Count] = field(default_factory=lambda: [8192, 8192, 8192])  # its layer widths
    invariance: Amount = 25.0  # weight of the views' mean squared distance
    variance: Amount = 25.0  # weight of the hinge on each dimension's std
    covariance: Amount = 1.0  # weight of the squared off-diagonal covariances


class VICReg(Method):
    Settings = VICRegSettings
    projector: nn.Sequential  # the paper's expander

    def __init__(self, settings: VICRegSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.projector = heads.mlp([backbone.num_features, *settings.expander], last_bias=False)

    @classmethod
    def zero_init(cls, settings: VICRegSettings) -> bool:
        """True, as in facebookresearch/vicreg, main_vicreg.py:189-191."""
        return True

    def forward(self, batch: ViewBatch) -> Losses:
        # One view at a time: batch norm sees the distribution of that view alone.
        z = torch.stack([self.projector(self.backbone(view)).float() for view in batch.crops()])
        weights, terms = self.settings, vicreg(z)
        loss = (
            weights.invariance * terms.invariance
            + weights.variance * terms.variance
            + weights.covariance * terms.covariance
        )
        return Losses(loss, {name: term.detach() for name, term in terms._asdict().items()})
