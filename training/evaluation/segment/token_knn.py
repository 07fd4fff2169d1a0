"""kNN segmentation: the tokens of an image get the class of their nearest training tokens.

A token is one position of the last map; its class is the most common one among its patch's pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import interpolate, normalize

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_ahead
from patchmill.training.evaluation import knn
from patchmill.training.evaluation.segment.labelled import IGNORED, Labelled
from patchmill.training.evaluation.segment.pixels import Pixels
from patchmill.training.evaluation.segment.testing import AHEAD
from patchmill.training.evaluation.segment.views import Size, whole_view
from patchmill.training.nets import dense
from patchmill.training.nets.backbones import Backbone


class Bank(NamedTuple):
    tokens: torch.Tensor  # [N, channels], unit vectors
    labels: torch.Tensor  # int64 [N]


@torch.no_grad()
def collect(
    backbone: Backbone,
    data: Labelled,
    size: Size,
    pixels: Pixels,
    most: int,
    seed: int,
    threads: int,
    title: str = "bank",
) -> Bank:
    """Collect at most `most` labelled tokens, equally many from each image, drawn by the seed."""
    draws = torch.Generator().manual_seed(seed)
    count = min(len(data), most)
    chosen = torch.randperm(len(data), generator=draws)[:count].sort().values.tolist()
    samples = map_ahead(data.read, chosen, threads, AHEAD * threads)
    tokens, labels = [], []
    with track(title, count, unit="images") as advance:
        for sample in samples:
            view = whole_view(sample, size)
            with pixels.autocast():
                features = dense.feature_map(backbone, pixels.images(view.image[None]))
            rows = features[0].flatten(1).T
            classes = patch_labels(pixels.labels(view.mask[None]), features.shape[-2:]).flatten()
            labelled = (classes != IGNORED).nonzero()[:, 0]
            drawn = torch.randperm(len(labelled), generator=draws)[: most // count]
            picked = labelled[drawn.to(labelled.device)]
            tokens.append(normalize(rows[picked].float(), dim=1))
            labels.append(classes[picked])
            advance(1)
    bank = Bank(torch.cat(tokens), torch.cat(labels))
    if not len(bank.labels):
        raise MillError(f"no pixel of {data.name} has a label: there are no tokens to compare with")
    return bank


def patch_labels(labels: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return the most common of the labels [1, H, W] in each of the `shape` patches: int64 [h, w].

    Ties go to the smallest label; IGNORED only for patches without labelled pixels.
    """
    height, width = shape
    _, rows, columns = labels.shape
    patches = labels[0].view(height, rows // height, width, columns // width)
    flat = patches.permute(0, 2, 1, 3).reshape(height, width, -1)
    counts = torch.zeros(height, width, IGNORED + 1, dtype=torch.int64, device=labels.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    counts[..., IGNORED] = 0
    return torch.where(counts.sum(2) > 0, counts.argmax(2), IGNORED)


class TokenKNN:
    """Maps images [1, 3, H, W] to the votes of their tokens' neighbours, [1, classes, H, W]."""

    def __init__(
        self, backbone: Backbone, bank: Bank, classes: int, k: int, temperature: float
    ) -> None:
        self._backbone, self._bank, self._classes = backbone, bank, classes
        self._k, self._temperature = k, temperature

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        features = dense.feature_map(self._backbone, images)
        _, channels, height, width = features.shape
        rows = features[0].reshape(channels, -1).T
        votes = torch.cat(
            list(knn.votes(*self._bank, rows, self._k, self._temperature, self._classes))
        )
        shares = votes / votes.sum(1, keepdim=True)
        maps = shares.T.reshape(1, self._classes, height, width)
        return interpolate(maps, images.shape[-2:], mode="bilinear")
