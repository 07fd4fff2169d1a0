"""BYOL (Grill et al., arXiv 2006.07733): predict a teacher's projection of the other view.

The teacher is a moving average of the student, with a momentum that rises to 1. There are no
negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import normalize

from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Count, Share, Width
from patchmill.training.methods.method import Losses, Method, Progress, embedding_std, parts_of
from patchmill.training.nets import heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.nets.ema import Teacher
from patchmill.training.objectives.byol import byol
from patchmill.training.optim import schedules


@dataclass
class BYOLSettings:
    views: str = "vicreg"  # the recipe: a preset with its knobs, or a YAML file
    hidden: Count = 4096  # width of the hidden layers of projector and predictor
    dim: Width = 256  # width of projections and predictions
    momentum: Share = 0.996  # the teacher's initial EMA momentum; rises to 1


class BYOL(Method):
    Settings = BYOLSettings
    projector: nn.Sequential
    view_groups = ((2, 2),)

    def __init__(self, settings: BYOLSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        widths = [settings.hidden, settings.dim]
        self.projector = heads.mlp([backbone.num_features, *widths], last_bias=False)
        self.predictor = heads.mlp([settings.dim, *widths], last_bias=False)
        self.teacher = Teacher(self._student())

    def forward(self, batch: ViewBatch) -> Losses:
        # One view at a time: batch norm sees the distribution of that view alone.
        views = batch.crops()
        z = torch.stack([self.projector(self.backbone(view)) for view in views])
        predictions = torch.stack([self.predictor(view) for view in z]).float()
        targets = torch.stack([self.teacher(view) for view in views]).float()
        loss = 2 * byol(predictions, targets)  # the sum over both directions
        return Losses(loss, {"spread": embedding_std(normalize(z.float(), dim=-1))})

    def after_update(self, progress: Progress) -> None:
        done = progress.step / progress.steps
        momentum = schedules.cosine(self.settings.momentum, 1.0, done)
        self.teacher.update(self._student(), momentum)

    def teacher_networks(self) -> tuple[Backbone, nn.Module | None]:
        return parts_of(self.teacher)

    def _student(self) -> nn.Sequential:
        return nn.Sequential(self.backbone, self.projector)
