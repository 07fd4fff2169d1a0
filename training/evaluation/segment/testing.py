"""Predictions for whole test images, at the resolution of their masks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch.nn.functional import interpolate

from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_ahead
from patchmill.training.evaluation.segment.labelled import Labelled, Sample
from patchmill.training.evaluation.segment.metrics import Confusion, Scores
from patchmill.training.evaluation.segment.pixels import Pixels
from patchmill.training.evaluation.segment.views import Size, whole_view

AHEAD = 4  # images read ahead per thread

Predict = Callable[[torch.Tensor], torch.Tensor]  # images [1, 3, H, W] to scores [1, classes, H, W]


class Tested(NamedTuple):
    scores: Scores
    predictions: dict[int, torch.Tensor]  # uint8 [H, W] for each requested image


@torch.no_grad()
def score(
    predict: Predict,
    data: Labelled,
    size: Size,
    pixels: Pixels,
    threads: int,
    shown: Collection[int] = (),
    title: str = "test images",
) -> Tested:
    """Score the predictions for all images, one at a time: the whole image, at one scale."""
    confusion = Confusion(len(data.classes), pixels.device)
    predictions: dict[int, torch.Tensor] = {}
    samples = map_ahead(data.read, range(len(data)), threads, AHEAD * threads)
    with track(title, len(data), unit="images") as advance:
        for index, sample in enumerate(samples):
            predicted = _predict(predict, sample, size, pixels)
            confusion.add(sample.mask.as_subclass(torch.Tensor).to(pixels.device), predicted)
            if index in shown:
                predictions[index] = predicted.to(torch.uint8).cpu()
            advance(1)
    return Tested(confusion.scores(), predictions)


def _predict(predict: Predict, sample: Sample, size: Size, pixels: Pixels) -> torch.Tensor:
    """Predict the classes [H, W] of an image's pixels."""
    view = whole_view(sample, size).image
    height, width = view.shape[-2:]
    with pixels.autocast():
        scores = predict(pixels.images(view[None])).float()
    scores = scores[..., :height, :width]
    return interpolate(scores, sample.mask.shape[-2:], mode="bilinear")[0].argmax(0)
