"""Base class of methods: networks, and a loss for a batch of views."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe
from patchmill.training.nets.backbones import Backbone


class Progress(NamedTuple):
    step: int  # the next optimiser step, from 0
    steps: int
    epoch: float
    epochs: int


class Losses(NamedTuple):
    loss: torch.Tensor  # float32 scalar
    metrics: dict[str, torch.Tensor]  # scalars without gradient, for the log
    settled: torch.Tensor | None = None  # bool scalar; False: not to be logged, as it will not last


class Method(nn.Module):
    """A self-supervised (or supervised) learner.

    `backbone` is evaluated and exported: [N, 3, H, W] -> h [N, num_features]. `projector`, if any,
    maps h to the z that the loss is on.
    """

    Settings: ClassVar[type]  # dataclass of the method's settings, with a field `views`
    backbone: Backbone
    projector: nn.Module | None
    needs_labels = False
    view_counts: tuple[float, float] = (2, float("inf"))  # views of an image: minimum, maximum

    @classmethod
    def zero_init(cls, settings: Any) -> bool:
        """True if the last batch norm of each of a ResNet's blocks begins with a weight of 0.

        False is torchvision's default: all begin with 1.
        """
        return False

    def __init__(self, *args: Any) -> None:
        """Take settings and a backbone, and the number of classes if `needs_labels`."""
        super().__init__()
        self.projector = None

    def forward(self, batch: ViewBatch) -> Losses:
        raise NotImplementedError

    def on_step_start(self, progress: Progress) -> None:
        """Called once per optimiser step, before its first forward pass: updates EMA teachers."""

    def batch_problem(self, batch: int, ranks: int = 1) -> str | None:
        """Sentence on why this global batch size does not work on so many ranks, or None."""
        return None

    @classmethod
    def check(cls, settings: Any, recipe: Recipe) -> None:
        """Raise a MillError if the recipe's views do not fit the method."""
        group, *others = recipe.views
        if others:
            raise MillError(
                f"method.views: {cls.__name__} takes one group of views, and {recipe.name} makes "
                f"{len(recipe.views)}: {', '.join(views.name for views in recipe.views)}"
            )
        least, most = cls.view_counts
        if not least <= group.count <= most:
            expected = f"{least}" if least == most else f"at least {least}"
            raise MillError(
                f"method.views: {cls.__name__} takes {expected} views of an image, and "
                f"{recipe.name} makes {group.count}"
            )


def flatten_views(batch: ViewBatch) -> torch.Tensor:
    """All views of the only group, view-major: [V * B, 3, size, size]."""
    (group,) = batch.views
    return batch.flat(group)


def unflatten_views(rows: torch.Tensor, batch: ViewBatch) -> torch.Tensor:
    """[V * B, d] -> [V, B, d]."""
    return rows.unflatten(0, (-1, len(batch)))


@torch.no_grad()
def embedding_std(z: torch.Tensor) -> torch.Tensor:
    """Mean std over dimensions of unit vectors [..., d], times sqrt(d): 1 uniform, 0 collapsed.

    Logged under the key "spread".
    """
    z = z.detach().float().flatten(0, -2)
    return z.std(0).mean() * z.shape[1] ** 0.5
