"""DINO (Caron et al., arXiv 2104.14294): self-distillation between crops, with no labels.

A teacher, the moving average of the student, sees the two global crops; the student learns to give
every other crop of the image the teacher's distribution over prototypes. The teacher's outputs are
centred and sharpened to prevent collapse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import normalize, softmax
from torch.nn.utils import parametrizations

from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Amount, Count, Positive, Share, Whole
from patchmill.training.methods.method import (
    ANY,
    Losses,
    Method,
    Progress,
    embedding_std,
    parts_of,
)
from patchmill.training.nets import heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.nets.ema import Teacher
from patchmill.training.objectives.dino import distillation
from patchmill.training.optim import schedules
from patchmill.training.ranks import distributed


@dataclass
class DINOSettings:
    views: str = "dino"  # the recipe: a preset with its knobs, or a YAML file
    hidden: Count = 2048  # width of the projector's two hidden layers
    dim: Count = 256  # dimension of z, which is compared with the prototypes
    norm: bool = False  # batch norm in the projector
    prototypes: Count = 65536  # number of prototypes: rows of the last layer
    fixed_gain: bool = True  # keep the norm of every prototype at 1
    freeze: Amount = 1.0  # epochs during which the prototypes are frozen
    temperature: Positive = 0.1  # the student's temperature
    teacher_temperature: Positive = 0.04  # the teacher's temperature after its warmup
    first_temperature: Positive = 0.04  # the teacher's temperature in the first epoch
    warmup_temperature: Whole = 0  # epochs from the first temperature to the teacher's
    centre_momentum: Share = 0.9  # EMA momentum of the centre of the teacher's outputs
    momentum: Share = 0.996  # the teacher's initial EMA momentum; rises to 1


class DINO(Method):
    Settings = DINOSettings
    projector: nn.Sequential
    view_groups = ((2, 2), (0, ANY))
    evaluated = "teacher"
    centre: torch.Tensor  # [prototypes]

    def __init__(self, settings: DINOSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        widths = [backbone.num_features, settings.hidden, settings.hidden, settings.dim]
        self.projector = heads.mlp(widths, norm=settings.norm, activation=nn.GELU)
        heads.init_truncated_normal(self.projector)
        self.last_layer = Prototypes(settings.dim, settings.prototypes, settings.fixed_gain)
        self.teacher = Teacher(self._student())
        self.register_buffer("centre", torch.zeros(settings.prototypes))
        self.temperature = settings.first_temperature

    def on_step_start(self, progress: Progress) -> None:
        self.temperature = _teacher_temperature(self.settings, int(progress.epoch))

    def before_update(self, progress: Progress) -> None:
        if int(progress.epoch) < self.settings.freeze:
            for param in self.last_layer.parameters():
                param.grad = None  # no weight decay either

    def after_update(self, progress: Progress) -> None:
        done = progress.step / progress.steps
        momentum = schedules.cosine(self.settings.momentum, 1.0, done)
        self.teacher.update(self._student(), momentum)

    def teacher_networks(self) -> tuple[Backbone, nn.Module | None]:
        return parts_of(self.teacher)

    def forward(self, batch: ViewBatch) -> Losses:
        crops = [batch.flat(group) for group in batch.views]
        h = torch.cat([self.backbone(group) for group in crops])  # one pass per resolution
        z = self.projector(h)
        student = self.last_layer(z).float().unflatten(0, (-1, len(batch)))
        teacher = self.teacher(crops[0]).float().unflatten(0, (-1, len(batch)))

        targets = softmax((teacher - self.centre) / self.temperature, dim=-1)
        loss = distillation(student / self.settings.temperature, targets)
        self._update_centre(teacher)
        entropy = torch.special.entr(targets).sum(-1).mean()
        spread = embedding_std(normalize(z.detach().float(), dim=-1))
        return Losses(loss, {"entropy": entropy, "spread": spread})

    @torch.no_grad()
    def _update_centre(self, teacher: torch.Tensor) -> None:
        """Move the centre towards the mean output [V, B, prototypes] of all ranks' teachers."""
        mean = distributed.mean(teacher.mean((0, 1)))
        self.centre.lerp_(mean, 1 - self.settings.centre_momentum)

    def _student(self) -> nn.Sequential:
        return nn.Sequential(self.backbone, self.projector, self.last_layer)


class Prototypes(nn.Module):
    """Cosine similarity of z to learnt prototypes: L2 norm, then a weight-normed linear layer."""

    def __init__(self, dim: int, prototypes: int, fixed_gain: bool) -> None:
        super().__init__()
        layer = parametrizations.weight_norm(nn.Linear(dim, prototypes, bias=False))
        gain = layer.parametrizations.weight.original0  # type: ignore[union-attr]
        nn.init.ones_(gain)  # type: ignore[arg-type]
        gain.requires_grad_(not fixed_gain)  # type: ignore[operator]
        self.layer = layer

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layer(normalize(z, dim=-1))


def _teacher_temperature(settings: DINOSettings, epoch: int) -> float:
    first, last = settings.first_temperature, settings.teacher_temperature
    if epoch >= settings.warmup_temperature:
        return last
    return first + (last - first) * epoch / max(settings.warmup_temperature - 1, 1)
