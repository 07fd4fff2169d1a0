"""Accuracy by colour alone: a floor for networks on made-up scenes, whose classes have colours."""

from __future__ import annotations

import numpy as np
import torch

from patchmill.loaders.common.threads import available_cores, map_in_threads
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.sources import open_source
from patchmill.training.evaluation import knn
from patchmill.training.evaluation.features import Features

LEVELS = 4  # of each of red, green and blue


def knn_accuracy(train: str, test: str, k: int, temperature: float) -> float:
    """Accuracy of kNN on histograms of the images' colours, by their Bhattacharyya coefficients."""
    bank, tests = (
        features._replace(rows=features.rows.sqrt())
        for features in (histograms(train), histograms(test))
    )
    return knn.accuracy(bank, tests, k, temperature)


def histograms(data: str) -> Features:
    """Shares of LEVELS^3 colours in each image of the data: [images, LEVELS^3]."""
    source = open_source(data)
    ids = np.arange(len(source))

    def histogram(index: int) -> np.ndarray:
        levels = decode(source.read(index)) // (256 // LEVELS)
        red, green, blue = np.moveaxis(levels.astype(int), 2, 0)
        colours = (red * LEVELS + green) * LEVELS + blue
        return np.bincount(colours.ravel(), minlength=LEVELS**3) / colours.size

    rows = np.stack(list(map_in_threads(histogram, ids.tolist(), available_cores())))
    labels = torch.from_numpy(source.labels_of(ids))
    return Features(torch.from_numpy(rows).float(), labels, torch.from_numpy(ids))
