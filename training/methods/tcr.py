"""Total coding rate with invariance, as in NMCE (Li et al., arXiv 2201.10000), BagSSL's ancestor.

Views of an image agree, while the coding rate of the batch under each view is maximised.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.functional import normalize

from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Amount, Count, Positive
from patchmill.training.methods.method import (
    Losses,
    Method,
    embedding_std,
    flatten_views,
    unflatten_views,
)
from patchmill.training.nets import heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.objectives.tcr import agreement, coding_rate


@dataclass
class TCRSettings:
    views: str = "simclr(size=32, strength=0.5, blur=0)"  # the recipe, or a YAML file
    hidden: Count = 4096  # width of the projector
    dim: Count = 128  # width of the projector's output
    eps: Positive = 0.2  # distortion of the coding rate
    weight: Amount = 30.0  # weight of the views' agreement


class TCR(Method):
    Settings = TCRSettings
    projector: nn.Sequential

    def __init__(self, settings: TCRSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.projector = heads.mlp([backbone.num_features, settings.hidden, settings.dim])

    def forward(self, batch: ViewBatch) -> Losses:
        z = self.projector(self.backbone(flatten_views(batch))).float()
        z = unflatten_views(normalize(z), batch)
        rate, invariance = coding_rate(z, self.settings.eps), agreement(z)
        metrics = {
            "rate": rate.detach(),
            "agreement": invariance.detach(),
            "spread": embedding_std(z),
        }
        return Losses(-rate - self.settings.weight * invariance, metrics)
