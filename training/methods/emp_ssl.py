"""EMP-SSL (Tong et al., arXiv 2304.03977): many fixed-scale patches of each image, few epochs.

Every patch agrees with the mean of its image's patches, while the coding rate of each patch index
over the batch is maximised.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import normalize

from patchmill.kernels.bags import bag_loss
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
from patchmill.training.objectives.tcr import coding_rate


@dataclass
class EMPSSLSettings:
    views: str = "emp_ssl"  # the recipe: a preset with its knobs, or a YAML file
    hidden: Count = 4096  # width of h, the evaluated representation, and of the projector
    dim: Count = 1024  # dimension of z
    eps: Positive = 0.2  # distortion of the coding rate
    weight: Amount = 200.0  # weight of the patches' agreement with their mean


class EMPSSL(Method):
    Settings = EMPSSLSettings
    projector: nn.Sequential

    def __init__(self, settings: EMPSSLSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, Widened(backbone, settings.hidden)
        self.projector = heads.mlp([settings.hidden, settings.hidden, settings.dim])

    def forward(self, batch: ViewBatch) -> Losses:
        z = self.projector(self.backbone(flatten_views(batch))).float()
        z = unflatten_views(normalize(z), batch)
        invariance, rate = bag_loss(z), coding_rate(z, self.settings.eps)
        metrics = {
            "rate": rate.detach(),
            "agreement": -invariance.detach(),
            "spread": embedding_std(z),
        }
        return Losses(self.settings.weight * invariance - rate, metrics)


class Widened(Backbone):
    """A backbone followed by a wide layer, whose output is the representation."""

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.backbone = backbone  # nets/dense.py takes feature maps from it
        self.widen = nn.Sequential(
            nn.Linear(backbone.num_features, width), nn.BatchNorm1d(width), nn.ReLU()
        )
        self.num_features = width

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return self.widen(self.backbone(views))
