"""BagSSL (Chen et al., arXiv 2206.08954): joint embedding of fixed-scale patches of an image.

Any joint-embedding objective works on the patches. An image is represented by the mean of its
patches' h, which `evaluate=patches` computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import normalize

from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Amount, Count, Positive, Share
from patchmill.training.methods.method import (
    Losses,
    Method,
    Progress,
    embedding_std,
    flatten_views,
    parts_of,
    unflatten_views,
)
from patchmill.training.nets import heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.nets.ema import Teacher
from patchmill.training.objectives.byol import byol
from patchmill.training.objectives.nt_xent import nt_xent
from patchmill.training.objectives.tcr import agreement, coding_rate
from patchmill.training.objectives.vicreg import vicreg
from patchmill.training.optim import schedules


@dataclass
class BagSSLSettings:
    views: str = "bagssl"  # the recipe: a preset with its knobs, or a YAML file
    objective: Literal["tcr", "vicreg", "simclr", "byol"] = "tcr"  # loss on the patches
    hidden: list[Count] = field(default_factory=lambda: [4096, 4096])  # widths of the projector
    dim: Count = 128  # width of the projector's output
    eps: Positive = 0.2  # tcr: distortion of the coding rate
    weight: Amount = 30.0  # tcr: weight of the patches' agreement
    temperature: Positive = 0.1  # simclr: temperature of the logits
    invariance: Amount = 25.0  # vicreg: weight of the invariance term
    variance: Amount = 25.0  # vicreg: weight of the variance term
    covariance: Amount = 1.0  # vicreg: weight of the covariance term
    momentum: Share = 0.99  # byol: the teacher's initial EMA momentum; rises to 1


class BagSSL(Method):
    Settings = BagSSLSettings
    projector: nn.Sequential

    def __init__(self, settings: BagSSLSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.projector = heads.mlp([backbone.num_features, *settings.hidden, settings.dim])
        self.teacher = self.predictor = None
        if settings.objective == "byol":
            self.teacher = Teacher(self._student())
            self.predictor = heads.mlp([settings.dim, settings.hidden[0], settings.dim])

    @classmethod
    def zero_init(cls, settings: BagSSLSettings) -> bool:
        """True with VICReg's objective, as for VICReg."""
        return settings.objective == "vicreg"

    def after_update(self, progress: Progress) -> None:
        if self.teacher:
            done = progress.step / progress.steps
            momentum = schedules.cosine(self.settings.momentum, 1.0, done)
            self.teacher.update(self._student(), momentum)

    def teacher_networks(self) -> tuple[Backbone, nn.Module | None] | None:
        return parts_of(self.teacher) if self.teacher else None

    def forward(self, batch: ViewBatch) -> Losses:
        z = unflatten_views(self.projector(self.backbone(flatten_views(batch))).float(), batch)
        objectives = {
            "tcr": self._tcr,
            "vicreg": self._vicreg,
            "simclr": self._simclr,
            "byol": self._byol,
        }
        loss = objectives[self.settings.objective](z, batch)
        return Losses(loss, {"spread": embedding_std(normalize(z, dim=-1))})

    def _tcr(self, z: torch.Tensor, batch: ViewBatch) -> torch.Tensor:
        z = normalize(z, dim=-1)
        return -coding_rate(z, self.settings.eps) - self.settings.weight * agreement(z)

    def _vicreg(self, z: torch.Tensor, batch: ViewBatch) -> torch.Tensor:
        weights, terms = self.settings, vicreg(z)
        return (
            weights.invariance * terms.invariance
            + weights.variance * terms.variance
            + weights.covariance * terms.covariance
        )

    def _simclr(self, z: torch.Tensor, batch: ViewBatch) -> torch.Tensor:
        return nt_xent(normalize(z, dim=-1), self.settings.temperature)

    def _byol(self, z: torch.Tensor, batch: ViewBatch) -> torch.Tensor:
        assert self.teacher and self.predictor
        predictions = unflatten_views(self.predictor(z.flatten(0, 1)).float(), batch)
        targets = unflatten_views(self.teacher(flatten_views(batch)).float(), batch)
        return byol(predictions, targets)

    def _student(self) -> nn.Sequential:
        return nn.Sequential(self.backbone, self.projector)
