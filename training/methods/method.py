"""Base class of methods: networks, and a loss for a batch of views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast, get_args

import torch
from torch import nn

from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe
from patchmill.training.nets import backbones, vits
from patchmill.training.nets.backbones import Backbone
from patchmill.training.nets.ema import Teacher

if TYPE_CHECKING:
    from patchmill.training.config.settings import Model

Encoder = Literal["auto", "student", "teacher"]
ANY = float("inf")


class Progress(NamedTuple):
    step: int  # the next optimiser step, from 0
    steps: int
    epoch: float
    epochs: int


class Losses(NamedTuple):
    loss: torch.Tensor  # float32 scalar
    metrics: dict[str, torch.Tensor]  # scalars without gradient, for the log
    settled: torch.Tensor | None = None  # bool scalar; if False, this loss is not logged


class Method(nn.Module):
    """A self-supervised (or supervised) learner.

    `backbone` is trained: [N, 3, H, W] -> h [N, num_features]. `projector`, if any, maps h to the z
    that the loss is on. `networks` returns the two that are evaluated and exported.
    """

    Settings: ClassVar[type]  # dataclass of the method's settings, with a field `views`
    backbone: Backbone
    projector: nn.Module | None
    needs_labels = False
    # Views of an image, minimum and maximum, in each view group; a group with minimum 0 may be
    # missing.
    view_groups: tuple[tuple[float, float], ...] = ((2, ANY),)
    evaluated: ClassVar[Literal["student", "teacher"]] = "student"  # by default

    @classmethod
    def zero_init(cls, settings: Any) -> bool:
        """True if the last batch norm in each block of a ResNet starts with a weight of 0.

        False is torchvision's default: all start with 1.
        """
        return False

    @classmethod
    def make_backbone(cls, settings: Any, model: Model, recipe: Recipe) -> Backbone:
        """Build the backbone for a recipe's views."""
        size = recipe.views[0].size
        backbone = backbones.build(model, size, zero_init=cls.zero_init(settings))
        for group in recipe.views:
            vits.check_size(backbone, group.name, group.size)
        return backbone

    def __init__(self, *args: Any) -> None:
        """Take settings and a backbone, and the number of classes if `needs_labels`."""
        super().__init__()
        self.projector = None

    def forward(self, batch: ViewBatch) -> Losses:
        raise NotImplementedError

    def on_step_start(self, progress: Progress) -> None:
        """Called once per optimiser step, before its first forward pass."""

    def before_update(self, progress: Progress) -> None:
        """Called when gradients are complete and clipped, before the optimiser uses them."""

    def after_update(self, progress: Progress) -> None:
        """Called after the optimiser's update; `progress` is of that step."""

    def networks(self, encoder: Encoder = "auto") -> tuple[Backbone, nn.Module | None]:
        """Return the backbone and projector to evaluate: the student's, or a teacher's."""
        if encoder == "student" or (encoder == "auto" and self.evaluated == "student"):
            return self.backbone, self.projector
        if (teacher := self.teacher_networks()) is None:
            raise MillError(f"evaluate.encoder=teacher: {type(self).__name__} has no teacher")
        return teacher

    def teacher_networks(self) -> tuple[Backbone, nn.Module | None] | None:
        """The teacher's backbone and projector; None without a teacher."""
        return None

    def encoder(self, encoder: Encoder = "auto") -> Backbone:
        """The backbone that is evaluated and exported."""
        return self.networks(encoder)[0]

    def finetune_network(self, variant: str = "auto") -> Backbone:
        """Return a network to fine-tune, starting from this method's weights.

        A method may offer several, under names of its own; the base class has those of `encoder`.
        """
        if variant in get_args(Encoder):
            return self.encoder(cast(Encoder, variant))
        raise MillError(
            f"variant={variant}: {type(self).__name__} has one network to fine-tune; omit variant="
        )

    def batch_problem(self, batch: int, ranks: int = 1) -> str | None:
        """Explain why this global batch size does not work on so many ranks; None if it does."""
        return None

    @classmethod
    def check(cls, settings: Any, recipe: Recipe) -> None:
        """Raise a MillError if the recipe's views do not fit the method."""
        groups, most_groups = recipe.views, len(cls.view_groups)
        if len(groups) > most_groups:
            expected = "one group" if most_groups == 1 else f"at most {most_groups} groups"
            raise MillError(
                f"method.views: {cls.__name__} takes {expected} of views, but {recipe.name} makes "
                f"{len(groups)}: {', '.join(views.name for views in groups)}"
            )
        for index, (least, most) in enumerate(cls.view_groups):
            count = groups[index].count if index < len(groups) else 0
            if not least <= count <= most:
                expected = f"{least}" if least == most else f"at least {least}"
                name = f"{groups[index].name} " if index < len(groups) > 1 else ""
                raise MillError(
                    f"method.views: {cls.__name__} takes {expected} {name}views of an image, but "
                    f"{recipe.name} makes {count}"
                )


def flatten_views(batch: ViewBatch) -> torch.Tensor:
    """Return all views of the only group, view-major: [V * B, 3, size, size]."""
    (group,) = batch.views
    return batch.flat(group)


def unflatten_views(rows: torch.Tensor, batch: ViewBatch) -> torch.Tensor:
    """[V * B, d] -> [V, B, d]."""
    return rows.unflatten(0, (-1, len(batch)))


def parts_of(teacher: Teacher) -> tuple[Backbone, nn.Module]:
    """Return backbone and projector of a Teacher of nn.Sequential(backbone, projector, ...)."""
    backbone, projector = cast(nn.Sequential, teacher.module)[:2]
    return cast(Backbone, backbone), projector


@torch.no_grad()
def embedding_std(z: torch.Tensor) -> torch.Tensor:
    """Mean std over dimensions of unit vectors [..., d], times sqrt(d): 1 uniform, 0 collapsed.

    Logged under the key "spread".
    """
    z = z.detach().float().flatten(0, -2)
    return z.std(0).mean() * z.shape[1] ** 0.5
