"""SimCLR (Chen et al., arXiv 2002.05709): NT-Xent over the views of the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.functional import normalize

from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Count, Positive
from patchmill.training.methods.method import (
    Losses,
    Method,
    embedding_std,
    flatten_views,
    unflatten_views,
)
from patchmill.training.nets import heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.objectives.nt_xent import nt_xent


@dataclass
class SimCLRSettings:
    views: str = "simclr"  # the recipe: a preset with its knobs, or a YAML file
    hidden: Count = 2048  # width of the projector
    dim: Count = 128  # width of the projector's output
    norm: bool = True  # batch norm after every layer of the projector, the last included
    temperature: Positive = 0.1  # temperature of the logits


class SimCLR(Method):
    Settings = SimCLRSettings
    projector: nn.Sequential

    def __init__(self, settings: SimCLRSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        widths = [backbone.num_features, settings.hidden, settings.dim]
        self.projector = heads.mlp(widths, norm=settings.norm, last_norm=settings.norm)

    @classmethod
    def zero_init(cls, settings: SimCLRSettings) -> bool:
        """True, as in google-research/simclr, resnet.py."""
        return True

    def forward(self, batch: ViewBatch) -> Losses:
        z = self.projector(self.backbone(flatten_views(batch))).float()
        z = unflatten_views(normalize(z), batch)
        return Losses(nt_xent(z, self.settings.temperature), {"spread": embedding_std(z)})
