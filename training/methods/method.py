"""What every method is: networks, and how a batch of views becomes a loss."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe
from patchmill.training.nets.backbones import Backbone


class Progress(NamedTuple):
    step: int  # the optimiser step to come, from 0
    steps: int
    epoch: float
    epochs: int


class Losses(NamedTuple):
    loss: torch.Tensor  # float32 scalar
    parts: dict[str, torch.Tensor]  # scalars without gradient, to look at


class Method(nn.Module):
    """`backbone` is what is evaluated and exported: [N, 3, H, W] -> h [N, num_features].

    `projector`, where there is one, makes the z of h that the loss is on.
    """

    Settings: ClassVar[type]  # a dataclass of its own settings, `views` among them
    backbone: Backbone
    projector: nn.Module | None
    needs_labels = False
    views_wanted: tuple[float, float] = (2, float("inf"))  # of an image: at least, at most

    def __init__(self, *what: Any) -> None:
        """Of its settings and a backbone, and of the number of classes, if it needs labels."""
        super().__init__()
        self.projector = None

    def forward(self, batch: ViewBatch) -> Losses:
        raise NotImplementedError

    def step_begins(self, progress: Progress) -> None:
        """Once for every optimiser step, before its first forward: where teachers follow."""

    def global_batch_must(self, batch: int, ranks: int = 1) -> str | None:
        """What is wrong with so many images on so many ranks, in a sentence; None if nothing."""
        return None

    @classmethod
    def check(cls, settings: Any, recipe: Recipe) -> None:
        """Refuse views that the method has no use for."""
        group, *others = recipe.views
        if others:
            raise MillError(
                f"method.views: {cls.__name__} takes one group of views, and {recipe.name} makes "
                f"{len(recipe.views)}: {', '.join(views.name for views in recipe.views)}"
            )
        least, most = cls.views_wanted
        if not least <= group.count <= most:
            wanted = f"{least}" if least == most else f"at least {least}"
            raise MillError(
                f"method.views: {cls.__name__} takes {wanted} views of an image, and {recipe.name} "
                f"makes {group.count}"
            )


def flat(batch: ViewBatch) -> torch.Tensor:
    """All views of the one group, view after view: [V * B, 3, size, size]."""
    (group,) = batch.views
    return batch.flat(group)


def by_view(rows: torch.Tensor, batch: ViewBatch) -> torch.Tensor:
    """[V * B, d] -> [V, B, d]."""
    return rows.unflatten(0, (-1, len(batch)))


@torch.no_grad()
def spread(z: torch.Tensor) -> torch.Tensor:
    """How far unit vectors [..., d] are from being all the same: 1 evenly spread, 0 collapsed."""
    z = z.detach().float().flatten(0, -2)
    return z.std(0).mean() * z.shape[1] ** 0.5
