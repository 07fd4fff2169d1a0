"""Total coding rate with invariance, as in NMCE (Li et al., arXiv 2201.10000), BagSSL's ancestor.

Views of an image agree while the batch, under each view, takes up as much room as it can.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.functional import normalize

from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Amount, Count, Positive
from patchmill.training.methods.method import Losses, Method, by_view, flat, spread
from patchmill.training.nets import heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.objectives.tcr import agreement, rate


@dataclass
class TCRSettings:
    views: str = "simclr(size=32, strength=0.5, blur=0)"  # the recipe, or a YAML file
    hidden: Count = 4096  # width of the projector
    dim: Count = 128  # of its output
    eps: Positive = 0.2  # precision that the coding rate is for
    weight: Amount = 30.0  # of the views' agreement


class TCR(Method):
    Settings = TCRSettings
    projector: nn.Sequential

    def __init__(self, settings: TCRSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.projector = heads.mlp([backbone.num_features, settings.hidden, settings.dim])

    def forward(self, batch: ViewBatch) -> Losses:
        z = by_view(normalize(self.projector(self.backbone(flat(batch))).float()), batch)
        room, alike = rate(z, self.settings.eps), agreement(z)
        parts = {"rate": room.detach(), "agreement": alike.detach(), "spread": spread(z)}
        return Losses(-room - self.settings.weight * alike, parts)
