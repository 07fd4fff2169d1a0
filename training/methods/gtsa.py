"""GTSA (Kim and Lee, arXiv 2304.08014): geometry-sensitive self-distillation on feature maps.

The student's map of a view is compared with the teacher's map of a global view, cropped to the
region that both show and rotated like the view, so that position and rotation must be represented.
Patches are also matched by content, and the student predicts each view's rotation. There is no
softmax, temperature, centre or queue: the student's predictor and the moving average prevent
collapse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from patchmill.kernels import matching, regions
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Crop, Recipe
from patchmill.training.config.settings import Amount, Count, Model, Share, Whole
from patchmill.training.methods.method import ANY, Losses, Method, Progress
from patchmill.training.nets import dense, map_heads
from patchmill.training.nets.backbones import Backbone
from patchmill.training.nets.ema import Teacher
from patchmill.training.optim import schedules


@dataclass
class GTSASettings:
    views: str = "gtsa"  # the recipe: a preset with its knobs, or a YAML file
    dim: Count = 768  # channels of the projected maps
    first_residual: bool = True  # in the projector's first block; False in the release's ViT-B
    bins: tuple[Count, Count] = (10, 4)  # per side of a shared region, in global and local views
    crop: Amount = 1.0  # weight of the loss on shared regions, sensitive to position and rotation
    match: Amount = 0.5  # weight of the correspondence loss
    match_after: Whole = 10  # the last epoch, from 0, without that loss
    rotation: Amount = 0.5  # weight of the rotation loss
    momentum: Share = 0.996  # the teacher's initial EMA momentum; rises to 1


class GTSA(Method):
    Settings = GTSASettings
    view_groups = ((2, 2), (0, ANY))
    evaluated = "teacher"

    @classmethod
    def make_backbone(cls, settings: GTSASettings, model: Model, recipe: Recipe) -> Backbone:
        backbone = super().make_backbone(settings, model, recipe)
        for group in recipe.views:
            if settings.match and dense.count_positions(backbone, group.size) < 2:
                raise MillError(
                    f"GTSA matches patches within views, but {model.name} has a single position "
                    f"for {group.name} views of {group.size} pixels: use a larger size, or "
                    "method.match=0"
                )
        return backbone

    def __init__(self, settings: GTSASettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        channels = dense.map_channels(backbone)
        self.map_projector = map_heads.projector(channels, settings.dim, settings.first_residual)
        self.predictor = map_heads.predictor(settings.dim)
        self.rotation_head = map_heads.rotation_head(channels)
        self.teacher = Teacher(self._student())
        self.match_weight = 0.0

    @classmethod
    def check(cls, settings: GTSASettings, recipe: Recipe) -> None:
        super().check(settings, recipe)
        if not (settings.crop or settings.match or settings.rotation):
            raise MillError(
                "method.crop, method.match and method.rotation are 0, which leaves GTSA no loss to "
                "learn from: give one of them a weight"
            )
        for group in recipe.views:
            if not (isinstance(group.crop, Crop) and group.crop.min_overlap > 0 and group.turns):
                raise MillError(
                    f"method.views: GTSA needs crops that overlap the global ones and are turned, "
                    f"but {group.name} of {recipe.name} has no min_overlap or no turns: use gtsa"
                )
            for operation in group.extra:
                if operation.moves:
                    raise MillError(
                        f"method.views: GTSA must know where views lie, but {operation.kind} in "
                        f"{group.name}'s extra moves what they show: remove it"
                    )

    def on_step_start(self, progress: Progress) -> None:
        done = progress.step / progress.steps
        self.teacher.update(self._student(), schedules.cosine(self.settings.momentum, 1.0, done))
        self.match_weight = (
            self.settings.match if int(progress.epoch) > self.settings.match_after else 0.0
        )

    def teacher_networks(self) -> tuple[Backbone, nn.Module | None]:
        return cast(MapEncoder, self.teacher.module).backbone, None

    def forward(self, batch: ViewBatch) -> Losses:
        groups = list(batch.views)
        teacher = self.teacher(batch.flat(groups[0]))
        crop, match, rotation, correct = [], [], [], []
        for group, bins in zip(groups, self.settings.bins, strict=False):
            features = dense.feature_map(self.backbone, batch.flat(group))
            student = self.predictor(self.map_projector(features))
            pairs = _pairs(batch, groups[0], group, teacher, student)
            crop.append(
                regions.crop_loss(
                    student,
                    teacher,
                    pairs.in_student,
                    pairs.in_teacher,
                    (pairs.student, pairs.teacher),
                    bins,
                    pairs.turns,
                    pairs.mirrors,
                )
            )
            if self.match_weight:
                tokens, of_teacher = student.flatten(2).mT, teacher.flatten(2).mT
                half, index = tokens.shape[1] // 2, (pairs.student, pairs.teacher)
                match.append(matching.correspond(tokens, of_teacher, half, index))
            turns = batch.geometry[group].turns.mT.flatten()
            logits = self.rotation_head(features.mean((2, 3))).float()
            rotation.append(cross_entropy(logits, turns, reduction="none"))
            correct.append(logits.detach().argmax(1) == turns)

        losses = {"crop": torch.cat(crop).mean(), "rotation": torch.cat(rotation).mean()}
        # A loss with weight 0 stays in the graph: every parameter has a gradient on every rank.
        loss = self.settings.crop * losses["crop"] + self.settings.rotation * losses["rotation"]
        # Logged in every epoch, so that the columns of the log stay the same.
        losses["match"] = torch.cat(match).mean() if match else loss.new_zeros(())
        loss = loss + self.match_weight * losses["match"]
        metrics = {name: value.detach() for name, value in losses.items()}
        return Losses(loss, metrics | {"turned": torch.cat(correct).float().mean()})

    def _student(self) -> MapEncoder:
        return MapEncoder(self.backbone, self.map_projector)


class MapEncoder(nn.Module):
    """Backbone and projector: images [N, 3, H, W] to projected maps [N, dim, h, w]."""

    def __init__(self, backbone: Backbone, projector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.projector = backbone, projector

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.projector(dense.feature_map(self.backbone, images))


class Pairs(NamedTuple):
    """R regions, each shared by a view of the student and a global view of the teacher."""

    student: torch.Tensor  # [R] int64: row of the student's maps, view-major
    teacher: torch.Tensor  # [R] int64
    in_student: torch.Tensor  # [R, 4]: x1, y1, x2, y2 in pixels of the student's map
    in_teacher: torch.Tensor  # [R, 4]
    turns: torch.Tensor  # [R] int64: from the teacher's view to the student's
    mirrors: torch.Tensor  # [R] bool


def _pairs(
    batch: ViewBatch, of_teacher: str, of_student: str, teacher: torch.Tensor, student: torch.Tensor
) -> Pairs:
    """Return all pairs of a global view q and another view v of one image, for v in one group."""
    g, v = batch.geometry[of_teacher], batch.geometry[of_student]
    sizes = [batch.views[name].shape[-1] for name in (of_teacher, of_student)]
    region = regions.shared(g.box, g.turns, sizes[0], v.box, v.turns, sizes[1], g.flip, v.flip)
    views = [
        (q, view)
        for q in range(g.turns.shape[1])
        for view in range(v.turns.shape[1])
        if of_teacher != of_student or q != view
    ]

    def select(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values[:, q, view] for q, view in views])

    images = torch.arange(len(batch), device=student.device)
    return Pairs(
        student=torch.cat([view * len(batch) + images for _, view in views]),
        teacher=torch.cat([q * len(batch) + images for q, _ in views]),
        in_student=select(region.in_v) * (student.shape[-1] / sizes[1]),
        in_teacher=select(region.in_g) * (teacher.shape[-1] / sizes[0]),
        turns=select(region.turns),
        mirrors=select(region.mirrors),
    )
