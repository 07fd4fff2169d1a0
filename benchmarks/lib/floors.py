"""Floors for accuracies on images: kNN on features without information on shapes and parts.

A network has learnt image content only as far as it exceeds these: `six_numbers`, the mean and
standard deviation of red, green and blue; `histogram`, the shares of 64 colours;
`centre_histogram`, those of the central half; `grey_pixels`, a grey image of 16 x 16 pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import one_hot

from patchmill.loaders.common.threads import available_cores, map_in_threads
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.sources import open_source

LEVELS = 4  # of each of red, green and blue
SIDE = 16  # pixels


def knn_accuracies(train: str, test: str, k: int = 20) -> dict[str, float]:
    """kNN accuracy on the data `test` with the bank `train`, by name of each of DESCRIPTORS."""
    bank, labels = describe(train)
    queries, expected = describe(test)
    return {
        name: _knn_accuracy(bank[name], labels, queries[name], expected, k) for name in DESCRIPTORS
    }


def describe(data: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """All descriptors of the data's images, float32 [images, d] each, and the labels."""
    source = open_source(data)
    ids = np.arange(len(source))

    def describe_one(index: int) -> list[np.ndarray]:
        image = decode(source.read(index))
        return [descriptor(image) for descriptor in DESCRIPTORS.values()]

    described = map_in_threads(describe_one, ids.tolist(), available_cores())
    columns = (np.stack(column) for column in zip(*described, strict=True))
    rows = (torch.from_numpy(column).float() for column in columns)
    labels = torch.from_numpy(source.labels_of(ids))
    return dict(zip(DESCRIPTORS, rows, strict=True)), labels


def _knn_accuracy(
    bank: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    expected: torch.Tensor,
    k: int,
) -> float:
    """Majority of the k nearest by Euclidean distance; the nearest one breaks ties."""
    nearest = torch.cdist(queries, bank).topk(min(k, len(bank)), largest=False).indices
    votes = one_hot(labels[nearest], int(labels.max()) + 1).double()
    first = votes[:, 0]
    return ((votes.sum(1) + 0.5 * first).argmax(1) == expected).double().mean().item()


# --------------------------------------------------------------------------------- the descriptors


def six_numbers(image: np.ndarray) -> np.ndarray:
    values = image.reshape(-1, 3) / 255
    return np.concatenate([values.mean(0), values.std(0)])


def histogram(image: np.ndarray) -> np.ndarray:
    """Square roots of the shares, so that distances are Hellinger's."""
    levels = image // (256 // LEVELS)
    red, green, blue = np.moveaxis(levels.astype(int), 2, 0)
    colours = (red * LEVELS + green) * LEVELS + blue
    return np.sqrt(np.bincount(colours.ravel(), minlength=LEVELS**3) / colours.size)


def centre_histogram(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return histogram(image[height // 4 : height - height // 4, width // 4 : width - width // 4])


def grey_pixels(image: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(grey, np.float32).reshape(-1) / 255


DESCRIPTORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "six_numbers": six_numbers,
    "histogram": histogram,
    "centre_histogram": centre_histogram,
    "grey_pixels": grey_pixels,
}
