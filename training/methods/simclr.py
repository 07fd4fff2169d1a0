"""SimCLR (Chen et al., arXiv 2002.05709): the views of an image against all others of the batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.functional import normalize

from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Count, Positive
from patchmill.training.methods.method import Losses, Method, by_view, flat, spread
from patchmill.training.nets import heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.objectives.nt_xent import nt_xent


@dataclass
class SimCLRSettings:
    views: str = "simclr"  # the recipe: a preset with its knobs, or a YAML file
    hidden: Count = 2048  # width of the projector
    dim: Count = 128  # of its output
    temperature: Positive = 0.1  # of the logits


class SimCLR(Method):
    Settings = SimCLRSettings
    projector: nn.Sequential

    def __init__(self, settings: SimCLRSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        sizes = [backbone.num_features, settings.hidden, settings.dim]
        self.projector = heads.mlp(sizes, norm=False)

    def forward(self, batch: ViewBatch) -> Losses:
        z = by_view(normalize(self.projector(self.backbone(flat(batch))).float()), batch)
        return Losses(nt_xent(z, self.settings.temperature), {"spread": spread(z)})
