"""Embed an image as the mean of its patches' embeddings, in h and in z."""

from __future__ import annotations

import torch

from patchmill.kernels.aggregate import Aggregator
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.progress import track
from patchmill.loaders.recipe import Recipe
from patchmill.training import data
from patchmill.training.data import Split
from patchmill.training.evaluation.features import Features, count_images, extract_with
from patchmill.training.evaluation.trained_run import Space, TrainedRun

FORWARD = 2**23  # numbers in the views of one forward pass, at most
RENDERED = 2**26  # numbers in the views of a batch, at most


class PatchMeans:
    """Embeds a batch as the means over each image's patches: of h and, beside it, of z.

    Each patch has its own z = g(h); nothing is normalised.
    """

    def __init__(self, run: TrainedRun) -> None:
        self._backbone, self._projector = run.backbone, run.projector
        self.widths: list[int] = []  # of h and z, known after the first batch

    def __call__(self, batch: ViewBatch) -> torch.Tensor:
        (group,) = batch.views
        views = batch.flat(group)
        image = torch.arange(len(views), device=views.device) % len(batch)
        sums: list[Aggregator] = []
        size = max(1, FORWARD // views[0].numel())
        for part, index in zip(views.split(size), image.split(size), strict=True):
            embeddings = self.embed(part)
            if not sums:
                sums = [Aggregator(len(batch), e.shape[1], "none", e.device) for e in embeddings]
            for total, rows in zip(sums, embeddings, strict=True):
                total.add(rows, index)
        self.widths = [total.mean().shape[1] for total in sums]
        return torch.cat([total.mean() for total in sums], 1)

    def embed(self, views: torch.Tensor) -> list[torch.Tensor]:
        """h of each view, and z if there is a projector."""
        h = self._backbone(views)
        return [h.float()] if self._projector is None else [h.float(), self._projector(h).float()]


def extract_means(
    run: TrainedRun, recipe: Recipe, split: Split, limit: int | None = None, title: str = ""
) -> dict[Space, Features]:
    """Means over the patches that the recipe makes of each image, by space."""
    (views,) = recipe.views
    most_images = max(1, RENDERED // (views.total * 3 * views.size**2))
    batch_size = min(run.config.evaluate.batch_size, most_images)
    loader = data.open_evaluation(run.config, run.world, split, recipe, batch_size)
    embed, title = PatchMeans(run), title or f"{split}ing images"
    with track(title, count_images(loader, limit), unit="images") as advance:
        rows, labels, ids = extract_with(embed, run.method, loader, limit, run.amp, advance)
    parts = rows.split(embed.widths, 1)
    return {
        space: Features(part.contiguous(), labels, ids)
        for space, part in zip(run.spaces, parts, strict=True)
    }
