"""aAcc, mIoU and mAcc from a confusion matrix, accumulated on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.segment.labelled import IGNORED


@dataclass(frozen=True)
class Scores:
    aAcc: float  # share of pixels classified correctly
    mIoU: float  # intersection over union, averaged over classes
    mAcc: float  # share of a class's pixels classified correctly, averaged over classes
    iou: list[float | None]  # of each class; None if no test image has it


class Confusion:
    """Pixel counts by class and prediction: int64 [classes, classes]."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def add(self, labels: torch.Tensor, predicted: torch.Tensor) -> None:
        """Count pixels of two tensors of one shape, except where the label is IGNORED."""
        counted = labels != IGNORED
        classes = len(self.matrix)
        cells = labels[counted].long() * classes + predicted[counted].long()
        self.matrix += torch.bincount(cells, minlength=classes**2).view(classes, classes)

    def scores(self) -> Scores:
        """Compute the scores; means are over the classes present in the labels."""
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
