"""aAcc, mIoU and mAcc from a confusion matrix, which is summed up on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.segment.labelled import IGNORED


@dataclass(frozen=True)
class Scores:
    aAcc: float  # share of the pixels whose class is right
    mIoU: float  # intersection over union, its mean over classes
    mAcc: float  # share of a class's pixels that are right, its mean over classes
    iou: list[float | None]  # of each class; None for one that no test image has


class Confusion:
    """Pixels by their class and their prediction: int64 [classes, classes]."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def add(self, labels: torch.Tensor, predicted: torch.Tensor) -> None:
        """Count pixels of two tensors of one shape, except where the label is IGNORED."""
        counted = labels != IGNORED
        classes = len(self.matrix)
        cells = labels[counted].long() * classes + predicted[counted].long()
        self.matrix += torch.bincount(cells, minlength=classes**2).view(classes, classes)

    def scores(self) -> Scores:
        """Means are over the classes that the labels have."""
        matrix = self.matrix.double().cpu()
        right, labelled, predicted = matrix.diag(), matrix.sum(1), matrix.sum(0)
        if not labelled.any():
            raise MillError("no pixel of the test images has a label: there is nothing to score")
        present = labelled > 0
        iou = right / (labelled + predicted - right)
        return Scores(
            (right.sum() / labelled.sum()).item(),
            iou[present].mean().item(),
            (right / labelled)[present].mean().item(),
            [value.item() if there else None for value, there in zip(iou, present, strict=True)],
        )
