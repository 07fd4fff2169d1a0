"""EMP-SSL (Tong et al., arXiv 2304.03977): many fixed-scale patches of each image, few epochs.

Every patch is drawn to the mean of its image's patches, and each set of patches that holds one of
every image takes up as much room as it can.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import normalize

from patchmill.kernels.bags import bag_loss
from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Amount, Count, Positive
from patchmill.training.methods.method import Losses, Method, by_view, flat, spread
from patchmill.training.nets import heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.objectives.tcr import rate


@dataclass
class EMPSSLSettings:
    views: str = "emp_ssl"  # the recipe: a preset with its knobs, or a YAML file
    hidden: Count = 4096  # width of h, which is what is evaluated, and of the projector
    dim: Count = 1024  # of z
    eps: Positive = 0.2  # precision that the coding rate is for
    weight: Amount = 200.0  # of the patches' agreement with their mean


class EMPSSL(Method):
    Settings = EMPSSLSettings
    projector: nn.Sequential

    def __init__(self, settings: EMPSSLSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, Widened(backbone, settings.hidden)
        self.projector = heads.mlp([settings.hidden, settings.hidden, settings.dim])

    def forward(self, batch: ViewBatch) -> Losses:
        z = by_view(normalize(self.projector(self.backbone(flat(batch))).float()), batch)
        apart, room = bag_loss(z), rate(z, self.settings.eps)
        parts = {"rate": room.detach(), "agreement": -apart.detach(), "spread": spread(z)}
        return Losses(self.settings.weight * apart - room, parts)


class Widened(Backbone):
    """A backbone and a wide layer behind it, whose output is the representation."""

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.widen = nn.Sequential(
            nn.Linear(backbone.num_features, width), nn.BatchNorm1d(width), nn.ReLU()
        )
        self.num_features = width

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return self.widen(self.backbone(views))
