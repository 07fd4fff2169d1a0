"""Embed an image as the mean of its patches' embeddings, in h and in z."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from patchmill.kernels.aggregate import Aggregator
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.progress import track
from patchmill.loaders.recipe import Recipe
from patchmill.training import data
from patchmill.training.data import Split
from patchmill.training.evaluation.features import Features, count_images, extract_with
from patchmill.training.evaluation.trained_run import Space, TrainedRun

# Maximum number of elements in the views of one forward pass: on a CPU, what fits its caches
FORWARD = {"cpu": 2**20, "cuda": 2**23}
RENDERED = 2**26  # maximum number of elements in the views of a batch


class PatchMeans:
    """Embeds a batch as the means over each image's patches: of h, concatenated with those of z.

    Each patch has its own z = g(h); nothing is normalised. With `counts`, the means over the first
    so many patches of each image are concatenated.
    """

    def __init__(self, run: TrainedRun, counts: Sequence[int] = ()) -> None:
        self._backbone, self._projector = run.backbone, run.projector
        self._counts = sorted(set(counts))
        self.widths: list[int] = []  # of h and z, known after the first batch

    def __call__(self, batch: ViewBatch) -> torch.Tensor:
        (group,) = batch.views
        views = batch.flat(group)  # the first patch of each image, then the second, ...
        images = len(batch)
        sums: list[Aggregator] = []
        means: list[torch.Tensor] = []
        size, start = max(1, FORWARD[views.device.type] // views[0].numel()), 0
        for count in self._counts or [len(views) // images]:
            stop = count * images
            for part in views[start:stop].split(size):
                embeddings = self.embed(part)
                if not sums:
                    sums = [Aggregator(images, e.shape[1], "none", e.device) for e in embeddings]
                index = torch.arange(start, start + len(part), device=views.device) % images
                for total, rows in zip(sums, embeddings, strict=True):
                    total.add(rows, index)
                start += len(part)
            means += [total.mean() for total in sums]
        self.widths = [rows.shape[1] for rows in means[: len(sums)]]
        return torch.cat(means, 1)

    def embed(self, views: torch.Tensor) -> list[torch.Tensor]:
        """Compute h of each view, and z if there is a projector."""
        h = self._backbone(views)
        return [h.float()] if self._projector is None else [h.float(), self._projector(h).float()]


def extract_means(
    run: TrainedRun, recipe: Recipe, split: Split, limit: int | None = None, title: str = ""
) -> dict[Space, Features]:
    """Extract means over the patches that the recipe makes of each image, by space."""
    (views,) = recipe.views
    return extract_first(run, recipe, [views.total], split, limit, title)[views.total]


def extract_first(
    run: TrainedRun,
    recipe: Recipe,
    counts: Sequence[int],
    split: Split,
    limit: int | None = None,
    title: str = "",
) -> dict[int, dict[Space, Features]]:
    """Extract means over the first patches of each image, by their number and by space."""
    (views,) = recipe.views
    counts = sorted(set(counts))
    if counts[-1] > views.total:
        raise ValueError(f"the recipe makes {views.total} patches, fewer than {counts[-1]}")
    most_images = max(1, RENDERED // (views.total * 3 * views.size**2))
    batch_size = min(run.config.evaluate.batch_size, most_images)
    loader = data.open_evaluation(run.config, run.world, split, recipe, batch_size)
    embed, title = PatchMeans(run, counts), title or f"{split}ing images"
    with track(title, count_images(loader, limit), unit="images") as advance:
        rows, labels, ids = extract_with(embed, run.method, loader, limit, run.amp, advance)
    parts = iter(rows.split(embed.widths * len(counts), 1))
    return {
        count: {space: Features(next(parts).contiguous(), labels, ids) for space in run.spaces}
        for count in counts
    }
